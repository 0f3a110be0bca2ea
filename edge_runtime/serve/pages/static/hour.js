// The last hour, a bar a minute: parts in grey, rejected and unsure ones at its foot.

const NS = "http://www.w3.org/2000/svg";
const GAP = 0.18; // of a minute between two bars
const LEAST = 1.5; // of 40: a single reject among a thousand parts is seen

export function drawHour(svg, minutes) {
  const most = Math.max(1, ...minutes.map((minute) => minute.parts));
  svg.setAttribute("viewBox", `0 0 ${Math.max(1, minutes.length)} 40`);
  const bars = minutes.flatMap((minute, at) => {
    const tall = (count) => (count ? Math.max(LEAST, (38 * count) / most) : 0);
    const [reject, unsure] = [tall(minute.reject), tall(minute.unsure)];
    return [
      bar("parts", at, tall(minute.parts), 0),
      bar("reject", at, reject, 0),
      bar("unsure", at, unsure, reject),
    ].filter(Boolean);
  });
  const base = document.createElementNS(NS, "path");
  base.setAttribute("d", `M0 39.5H${minutes.length}`);
  base.setAttribute("class", "base");
  svg.replaceChildren(...bars, base);
}

function bar(name, at, height, above) {
  if (!height) return null;
  const rect = document.createElementNS(NS, "rect");
  rect.setAttribute("class", name);
  rect.setAttribute("x", at + GAP / 2);
  rect.setAttribute("width", 1 - GAP);
  rect.setAttribute("y", 39 - above - height);
  rect.setAttribute("height", height);
  return rect;
}
