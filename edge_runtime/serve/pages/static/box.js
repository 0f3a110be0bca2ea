// A box drawn on the picture with mouse, pen or finger, in fractions of the picture, wherever it stands in its frame.

const SMALLEST = 0.004; // of a side: a touch without a pull is no box

export class BoxTool {
  // frame: what is pulled over; shot: the picture in it, fitted; marks: an svg over it; changed: called with each box.
  constructor({ frame, shot, marks, changed }) {
    Object.assign(this, { frame, shot, marks, changed, isOn: false, box: null, from: null, endedAt: -1e9 });
    frame.addEventListener("pointerdown", (event) => this.begin(event));
    frame.addEventListener("pointermove", (event) => this.pull(event));
    for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => this.end());
  }

  turn(isOn) {
    this.isOn = isOn;
    this.frame.classList.toggle("draws", isOn);
  }

  clear() {
    this.box = this.from = null;
    this.draw();
    this.turn(false);
  }

  at(event) {
    const room = this.shot.getBoundingClientRect();
    const { naturalWidth: width, naturalHeight: height } = this.shot;
    const scale = Math.min(room.width / width, room.height / height);
    const inside = (at, start, space, size) => Math.min(1, Math.max(0, (at - start - (space - size * scale) / 2) / (size * scale)));
    return [inside(event.clientX, room.left, room.width, width), inside(event.clientY, room.top, room.height, height)];
  }

  begin(event) {
    if (!this.isOn || !this.shot.naturalWidth || event.button) return;
    event.preventDefault();
    this.frame.setPointerCapture(event.pointerId);
    this.from = this.at(event);
  }

  pull(event) {
    if (!this.from) return;
    const [[x0, y0], [x1, y1]] = [this.from, this.at(event)];
    this.box = { x: Math.min(x0, x1), y: Math.min(y0, y1), w: Math.abs(x1 - x0), h: Math.abs(y1 - y0) };
    this.draw();
  }

  end() {
    if (!this.from) return;
    this.from = null;
    this.endedAt = performance.now(); // the click that follows is none
    if (this.box && Math.min(this.box.w, this.box.h) < SMALLEST) this.box = null;
    this.draw();
    this.changed(this.box);
  }

  draw() {
    const { naturalWidth: width, naturalHeight: height } = this.shot;
    this.marks.setAttribute("viewBox", `0 0 ${width || 1} ${height || 1}`);
    this.marks.replaceChildren();
    if (!this.box) return;
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const sides = { x: this.box.x * width, y: this.box.y * height, width: this.box.w * width, height: this.box.h * height };
    for (const [name, value] of Object.entries(sides)) rect.setAttribute(name, value);
    this.marks.append(rect);
  }
}
