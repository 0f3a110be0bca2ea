// A part's picture with the marked places over it and, where it is switched on, the model's heat map.

const NS = "http://www.w3.org/2000/svg";
const ROOM = 0.012; // of the picture's width around a place: the mark must not cover the scratch
const ARM = 0.33; // of a side: corner brackets, not a box

export class PictureView {
  constructor({ shot, heat, marks }) {
    Object.assign(this, { shot, heat, marks, showsHeat: false, shown: null });
  }

  // picture: {url, heatUrl, width, height, regions, verdict}. The new one takes the place of the old when it is there.
  async show(picture) {
    this.shown = picture;
    const next = new Image();
    next.src = picture.url;
    try {
      await next.decode();
    } catch {
      return false;
    }
    if (this.shown !== picture) return true; // another one came meanwhile
    this.shot.src = picture.url;
    this.draw();
    return true;
  }

  clear() {
    this.shown = null;
    this.shot.removeAttribute("src");
    this.marks.replaceChildren();
    this.heat.hidden = true;
  }

  switchHeat(isOn) {
    this.showsHeat = isOn;
    this.draw();
  }

  draw() {
    const picture = this.shown;
    if (!picture) return;
    this.heat.hidden = !(this.showsHeat && picture.heatUrl);
    if (!this.heat.hidden) this.heat.src = picture.heatUrl;
    const width = picture.width || this.shot.naturalWidth || 1280;
    const height = picture.height || this.shot.naturalHeight || 720;
    this.marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.marks.dataset.verdict = picture.verdict;
    this.marks.replaceChildren(...(picture.verdict === "accept" ? [] : picture.regions.flatMap((r) => brackets(r, width, height))));
  }
}

function brackets(region, width, height) {
  const room = ROOM * width;
  const [x0, y0] = [Math.max(2, region.x * width - room), Math.max(2, region.y * height - room)];
  const [x1, y1] = [Math.min(width - 2, (region.x + region.w) * width + room), Math.min(height - 2, (region.y + region.h) * height + room)];
  const side = Math.min(x1 - x0, y1 - y0);
  const arm = Math.min(Math.max(12, side * ARM), side * 0.45);
  const corner = (x, y, dx, dy) => `M${x + dx * arm} ${y}H${x}V${y + dy * arm}`;
  const d = corner(x0, y0, 1, 1) + corner(x1, y0, -1, 1) + corner(x0, y1, 1, -1) + corner(x1, y1, -1, -1);
  return ["under", "over"].map((name) => {
    const path = document.createElementNS(NS, "path");
    path.setAttribute("d", d);
    path.setAttribute("class", name);
    return path;
  });
}
