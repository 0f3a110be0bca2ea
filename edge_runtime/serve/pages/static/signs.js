// Signs, drawn once into the page: a sign that changes must not wait for a file.

const NS = "http://www.w3.org/2000/svg";

export async function loadSigns() {
  const text = await (await fetch("static/signs.svg")).text();
  const sheet = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  sheet.setAttribute("class", "unseen");
  sheet.setAttribute("aria-hidden", "true");
  for (const symbol of sheet.children) symbol.id = `sign-${symbol.id}`;
  document.body.append(document.adoptNode(sheet));
}

export function sign(name) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("class", "sign");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(NS, "use");
  svg.append(use);
  setSign(use, name);
  return svg;
}

export function setSign(use, name) {
  const href = `#sign-${name}`;
  if (use.getAttribute("href") !== href) use.setAttribute("href", href);
}
