// Elements of a page made from values: text is always text, never markup.

export function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name === "className" ? "class" : name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export const button = (text, press, className = "plain") => make("button", { type: "button", className, onclick: press }, text);

// A face for a state in which there is nothing to show: what it is, and what to do.
export const notice = (title, text = "") =>
  make("section", { className: "panel notice" }, make("h2", {}, title), text ? make("p", { className: "quiet" }, text) : null);

export const facts = (pairs) =>
  make("dl", { className: "facts" }, ...pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
