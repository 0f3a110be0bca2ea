// The reviewer's page: one key judges and shows the next. What the model and others said comes after one's own answer.

import { get, may, say, whoAmI } from "./api.js";
import { BoxTool } from "./box.js";
import { PictureView } from "./picture.js";
import { loadSigns } from "./signs.js";
import { toast } from "./toast.js";
import { fullTime, loadWords, nextLanguage, number, reasonOf, switchLanguage, t, timeOf, word } from "./words.js";

const $ = (id) => document.getElementById(id);
const NAME = "edge-reviewer";
const AHEAD = 3; // pictures that are there before they are asked for
const MORE_BELOW = 5; // of the queue: the next ones are fetched

const view = new PictureView({ shot: $("shot"), heat: $("heat"), marks: $("marks") });
const boxes = new BoxTool({ frame: $("zoom-open"), shot: $("shot"), marks: $("box"), changed: () => switchBox() });
const now = { queue: [], toGo: 0, kinds: {}, days: {}, day: "", good: null, defects: [], defect: "", part: null, last: null, heatIsOn: false, sawHeat: false, done: new Set() };

const setText = (id, text) => ($(id).textContent = text);
const urlOf = (row) => `api/parts/${row}/picture`;
const me = () => $("who").value.trim();

// -- the queue ----------------------------------------------------------------------------------------------------------

async function fetchQueue() {
  const about = await get(`api/review?${new URLSearchParams({ by: me(), day: now.day })}`);
  const queue = about.queue.filter((one) => !now.done.has(one.row));
  Object.assign(now, { queue, toGo: about.to_go - (about.queue.length - queue.length), kinds: about.kinds, days: about.days, good: about.good, defects: about.defects });
  if (!me()) $("who").value = about.by;
}

async function next() {
  if (now.queue.length <= MORE_BELOW && now.toGo > now.queue.length) await act(fetchQueue);
  now.part = now.queue[0] ?? null;
  Object.assign(now, { defect: "", sawHeat: now.heatIsOn });
  $("comment").value = "";
  show();
  for (const one of now.queue.slice(1, 1 + AHEAD)) new Image().src = urlOf(one.row);
}

function show() {
  const part = now.part;
  setText("to-go", t("review.to_go", { count: number(now.toGo) }));
  setText("kinds", Object.entries(now.kinds).map(([kind, count]) => `${word("kind", kind)} ${number(count)}`).join(" · "));
  setText("caption", part ? `${t("part.name", { part: part.part })} · ${word("kind", part.kind)} · ${timeOf(part.at_ms, true)}` : "");
  $("caption").title = part ? fullTime(part.at_ms) : "";
  $("zoom-open").hidden = !part;
  $("empty").hidden = Boolean(part);
  setText("empty", t("review.empty"));
  $("shot").alt = part ? t("part.name", { part: part.part }) : "";
  for (const id of ["accept", "reject", "cannot_tell", "skip"]) $(id).disabled = !part || !may("operate");
  $("undo").disabled = !now.last;
  if (boxes.part !== part?.row) switchBox(false);
  boxes.part = part?.row;
  if (part) view.show({ url: urlOf(part.row), heatUrl: `api/parts/${part.row}/heat`, width: 0, height: 0, regions: [], verdict: "accept" });
  else view.clear();
  showGood();
  showDefects();
  showDays();
}

function showGood() {
  $("good").hidden = now.good === null;
  if (now.good !== null && $("good-shot").getAttribute("src") !== urlOf(now.good)) $("good-shot").src = urlOf(now.good);
  $("good-shot").alt = t("review.good");
}

function chips(box, entries, isOn, press) {
  box.replaceChildren(
    ...entries.map(([value, label]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "plain";
      button.textContent = label;
      button.setAttribute("aria-pressed", String(isOn(value)));
      button.addEventListener("click", () => press(value));
      return button;
    }),
  );
}

function showDefects() {
  $("defects").setAttribute("aria-label", t("review.defect"));
  const entries = now.defects.map((name, at) => [name, `${at + 1} ${word("defect", name)}`]);
  chips($("defects"), entries, (name) => name === now.defect, setDefect);
}

function setDefect(name) {
  now.defect = now.defect === name ? "" : name;
  showDefects();
}

function showDays() {
  $("days").setAttribute("aria-label", t("review.days"));
  const days = Object.entries(now.days).slice(-5).map(([day, count]) => [day, `${new Date(`${day}T12:00`).toLocaleDateString(document.documentElement.lang, { day: "numeric", month: "short" })} (${number(count)})`]);
  chips($("days"), days, (day) => day === now.day, async (day) => {
    now.day = now.day === day ? "" : day;
    now.queue = [];
    await act(fetchQueue);
    next();
  });
}

// -- judging ------------------------------------------------------------------------------------------------------------

async function act(what) {
  try {
    return await what();
  } catch (err) {
    toast(t("failed", { why: err.message }), { ms: 8000 });
    return null;
  }
}

// The next part is shown at once; what was said is on its way meanwhile, and comes back if it could not be kept.
async function judge(label) {
  const part = now.part;
  if (!part || $(label).disabled) return;
  const words = { row: part.row, label, by: me(), comment: $("comment").value.trim(), box: label === "reject" ? boxes.box : null, defect: label === "reject" ? now.defect : "", saw: now.sawHeat };
  now.done.add(part.row);
  now.queue.shift();
  now.toGo -= 1;
  now.kinds[part.kind] -= 1;
  next();
  const said = await act(() => say("api/label", words));
  if (!said) {
    now.done.delete(part.row);
    now.queue.unshift(part);
    now.toGo += 1;
    now.kinds[part.kind] += 1;
    next();
    return;
  }
  now.last = { part, number: said.number };
  $("undo").disabled = false;
  tellAfter(part, label);
}

async function tellAfter(part, label) {
  const told = await act(() => get(`api/parts/${part.row}/answers?${new URLSearchParams({ by: me() })}`));
  if (!told || now.last?.part !== part) return;
  const others = told.labels.filter((one) => one.by !== me());
  const line = (name, text, differs) => {
    const p = document.createElement("p");
    const b = document.createElement("b");
    b.textContent = `${name}: `;
    p.append(b, text);
    if (differs) p.className = "differs";
    return p;
  };
  const heading = document.createElement("p");
  heading.className = "quiet";
  heading.textContent = t("review.after", { part: part.part, label: word("label", label) });
  const model = `${word("verdict", told.part.verdict)}, ${reasonOf(told.part.reason)}`;
  const disagrees = (other) => ["accept", "reject"].includes(label) && ["accept", "reject"].includes(other) && other !== label;
  $("after").replaceChildren(
    heading,
    line(told.part.model || t("cause.model"), model, disagrees(told.part.verdict)),
    ...others.map((one) => line(one.by, [word("label", one.label), one.defect && word("defect", one.defect), one.comment].filter(Boolean).join(" · "), disagrees(one.label))),
  );
}

async function undo() {
  const last = now.last;
  if (!last) return;
  now.last = null;
  if ((await act(() => say("api/undo", { number: last.number, by: me() }))) === null) return;
  now.done.delete(last.part.row);
  now.queue.unshift(last.part);
  now.toGo += 1;
  now.kinds[last.part.kind] += 1;
  $("after").replaceChildren();
  next();
}

function skip() {
  if (now.queue.length > 1) now.queue.push(now.queue.shift());
  next();
}

function switchHeat() {
  now.heatIsOn = !now.heatIsOn;
  now.sawHeat ||= now.heatIsOn; // it tells what the model saw: the label says so
  $("heat-switch").setAttribute("aria-pressed", String(now.heatIsOn));
  view.switchHeat(now.heatIsOn);
}

// Drawing ends with one box. Switched on again, it begins anew; the next part begins without one.
function switchBox(isOn = null) {
  if (isOn === null) boxes.turn(false);
  else {
    boxes.clear();
    boxes.turn(isOn && Boolean(now.part));
  }
  $("box-switch").setAttribute("aria-pressed", String(boxes.isOn || Boolean(boxes.box)));
}

function openZoom(event) {
  if (!now.part || boxes.isOn || event?.target.closest(".draws") || performance.now() - boxes.endedAt < 300) return;
  $("zoom-shot").src = urlOf(now.part.row);
  $("zoom").showModal();
}

// -- keys and words -----------------------------------------------------------------------------------------------------

const KEYS = { a: () => judge("accept"), r: () => judge("reject"), c: () => judge("cannot_tell"), z: undo, h: switchHeat, b: () => switchBox(!boxes.isOn), arrowright: skip };

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input")) {
    if (event.key === "Escape" || event.key === "Enter") event.target.blur();
    return;
  }
  const key = event.key.toLowerCase();
  const what = KEYS[key] ?? (now.defects[Number(key) - 1] && (() => setDefect(now.defects[Number(key) - 1])));
  if (what) {
    event.preventDefault();
    what();
  }
}

function showWords() {
  setText("language", nextLanguage().toUpperCase());
  $("language").setAttribute("aria-label", t("language", { language: nextLanguage().toUpperCase() }));
  $("zoom-open").setAttribute("aria-label", t("picture.zoom"));
  $("zoom-close").setAttribute("aria-label", t("picture.zoom_close"));
  document.title = `${t("review.title")} · edge_runtime`;
}

function wire() {
  const on = (id, what, kind = "click") => $(id).addEventListener(kind, what);
  for (const label of ["accept", "reject", "cannot_tell"]) on(label, () => judge(label));
  on("undo", undo);
  on("skip", skip);
  on("heat-switch", switchHeat);
  on("box-switch", () => switchBox(!boxes.isOn));
  on("zoom-open", openZoom);
  on("zoom-close", () => $("zoom").close());
  on("who", async () => {
    localStorage.setItem(NAME, me());
    now.queue = [];
    now.done.clear();
    await act(fetchQueue);
    next();
  }, "change");
  on("language", async () => {
    await switchLanguage();
    showWords();
    show();
  });
  document.addEventListener("keydown", pressed);
}

async function begin() {
  await Promise.all([loadWords(), loadSigns()]);
  showWords();
  const who = await whoAmI();
  if (!who) return;
  $("who").value = localStorage.getItem(NAME) ?? "";
  wire();
  await act(fetchQueue);
  next();
}

begin();
