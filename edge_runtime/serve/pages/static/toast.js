// What was done, said for a moment, with a way to take it back.

import { t } from "./words.js";

let undoNow = null;

export const undoLast = () => undoNow?.();

// undo: called when somebody takes it back within `ms`.
export function toast(text, { undo = null, ms = undo ? 10000 : 4000 } = {}) {
  const box = document.createElement("div");
  box.className = "toast";
  const line = document.createElement("p");
  line.textContent = text;
  box.append(line);
  const gone = () => {
    box.remove();
    if (undoNow === back) undoNow = null;
  };
  const back = () => {
    gone();
    undo();
  };
  if (undo) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.append(t("act.undo"), " ", Object.assign(document.createElement("kbd"), { textContent: "Z" }));
    button.addEventListener("click", back);
    box.append(button);
    undoNow = back;
  }
  document.getElementById("toasts").replaceChildren(box);
  setTimeout(gone, ms);
}
