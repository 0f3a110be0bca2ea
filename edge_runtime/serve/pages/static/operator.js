// The operator's screen: the last part, what was decided and why, what the line does, and the few things to do about it.

import { may, post, say, whoAmI } from "./api.js";
import { faceOf } from "./faces.js";
import { drawHour } from "./hour.js";
import { PictureView } from "./picture.js";
import { loadSigns, setSign, sign } from "./signs.js";
import { follow } from "./stream.js";
import { toast, undoLast } from "./toast.js";
import { fullTime, loadWords, nextLanguage, number, reasonOf, share, switchLanguage, t, timeOf, word } from "./words.js";

const $ = (id) => document.getElementById(id);
const HELD_MS = 1500; // a part that was not accepted is not wiped away by the next good one
const WRONG_MS = 5000;

const view = new PictureView({ shot: $("shot"), heat: $("heat"), marks: $("marks") });
const zoomed = new PictureView({ shot: $("zoom-shot"), heat: $("zoom-heat"), marks: $("zoom-marks") });
const now = { line: null, part: null, person: null, shift: null, pinned: null, heldUntil: 0, isOffline: false };

const setText = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};

// -- what the line does -------------------------------------------------------------------------------------------------

function showLine() {
  const line = now.line;
  const face = now.isOffline ? "offline" : line ? line.face : "connecting";
  const about = faceOf(face);
  document.body.dataset.face = face;
  document.body.toggleAttribute("data-cover", about.covers);
  setText("line", line?.line ?? "");
  setText("station", line?.station ?? "");
  setText("state", t(`face.${face}.word`));
  setSign($("state-sign"), about.sign);
  setText("automation", line?.automation ? t("automation", { degree: word("degree", line.automation) }) : "");
  showFact("recipe", line?.recipe);
  showFact("lot", line?.lot);
  showFace(face, about, line);
  showAlarms(line && !now.isOffline ? line.alarms : []);
  showVoice(line?.voice);
  showActs(line, face);
  document.title = `${t(`face.${face}.word`)} · ${line?.station || "edge_runtime"}`;
}

function showFact(id, value) {
  $(id).hidden = !value;
  setText(id, value ? t(id, { value }) : "");
}

function showFace(face, about, line) {
  const isQuiet = about.isQuiet || (face === "waits_for_person" && now.person); // the card asks for itself
  $("face").hidden = isQuiet;
  if (isQuiet) return;
  const held = { safe: t(`safe.${line?.safe_action || "reject"}`), who: line?.held_by ? word("who", line.held_by) : t("somebody"), since: line?.held_since_ms ? timeOf(line.held_since_ms) : "–" };
  $("face").dataset.tone = about.tone;
  setSign($("face-sign"), about.sign);
  if ($("face-title").textContent !== t(`face.${face}.title`, held)) announce(t(`face.${face}.title`, held));
  setText("face-title", t(`face.${face}.title`, held));
  setText("face-belt", t(`face.${face}.belt`, held));
  setText("face-do", t(`face.${face}.do`, held));
  setText("face-detail", now.isOffline ? "" : (line?.detail ?? ""));
  $("face-go").hidden = face !== "held" || !may("operate");
}

function showAlarms(alarms) {
  const loud = alarms.filter((alarm) => alarm.priority !== "low");
  const open = $("alarms-open");
  open.dataset.priority = loud.length ? loud[0].priority : "";
  const count = loud.length || alarms.length;
  open.hidden = !now.line || now.isOffline;
  open.textContent = loud.length ? t(count === 1 ? "alarms.one" : "alarms.many", { count }) : alarms.length ? t(count === 1 ? "notes.one" : "notes.many", { count }) : t("alarms.none");
  $("alarm-list").replaceChildren(
    ...alarms.map((alarm) => {
      const item = document.createElement("li");
      item.dataset.priority = alarm.priority;
      const name = document.createElement("b");
      name.textContent = `${word("component", alarm.source)} · ${word("priority", alarm.priority)}`;
      const detail = document.createElement("p");
      detail.textContent = alarm.detail;
      detail.lang = "en";
      item.append(sign(alarm.priority === "low" ? "mark" : "fault"), name, detail);
      return item;
    }),
  );
}

function showVoice(voice) {
  $("voice").hidden = $("search").hidden = !voice;
  if (!voice) return;
  $("voice").setAttribute("aria-label", t("voice.title"));
  const last = voice.asked.at(-1);
  const results = voice.shown.length ? voice.shown : (last?.found ?? []);
  $("talk").setAttribute("aria-pressed", String(voice.mode === "listening"));
  setText("heard", voice.says || (last?.transcript ? t("voice.heard", { text: last.transcript }) : t("voice.idle")));
  const [first, ...others] = results;
  const found = first && [first.code, first.name, first.instruction, others.length ? t("voice.others", { codes: others.map((one) => one.code).join(", ") }) : ""];
  setText("found", found ? found.filter(Boolean).join(" · ") : last ? word("outcome_asked", last.outcome) : "");
  $("found").title = $("found").textContent;
}

function showActs(line, face) {
  const isHeld = Boolean(line?.held_why);
  const can = may("operate") && !now.isOffline;
  $("hold").disabled = !can || !line?.automation;
  $("redo").disabled = !can || !line?.automation || isHeld;
  $("wrong").disabled = !can || Boolean(now.person) || !(now.pinned || now.part);
  $("talk").disabled = !can;
  setText("hold-word", t(isHeld ? "act.go_on" : "act.hold"));
  $("hold").classList.toggle("person", isHeld);
}

// -- the part -----------------------------------------------------------------------------------------------------------

function partCame(part) {
  const isHeld = now.part && now.part.verdict !== "accept" && performance.now() < now.heldUntil;
  if (isHeld && part.verdict === "accept") return;
  now.part = part;
  now.heldUntil = part.verdict === "accept" ? 0 : performance.now() + HELD_MS;
  if (part.verdict !== "accept") announce(`${word("verdict", part.verdict)}: ${reasonOf(part.reason)}`, 5000);
  if (!now.pinned) showPart();
  $("wrong").disabled = Boolean(now.person) || !may("operate");
}

// What the picture shows: a part that waits for an answer before all others, it is on its way to the gate.
const shown = () => now.person ?? now.pinned ?? now.part;

// A part waits for a person. Its picture stays until it is answered, or its time is over.
function personAsked(told) {
  if (!may("operate") || told.part === (now.person?.part ?? "")) return;
  now.person = told.part ? { ...told, verdict: "asks", cause: "model", score: null, ms: null, label: "", has_picture: true, has_heat: false } : null;
  if (now.person) announce(`${t("verdict.asks")}: ${t("part.name", { part: told.part })}`);
  showPart();
  if (now.line) showLine();
}

// One answer a part. The buttons are gone with the first touch; a second person, or a late one, is told so by the box.
function answer(verdict) {
  const part = now.person;
  if (!part || $(`person-${verdict}`).disabled) return;
  for (const id of ["person-accept", "person-reject"]) $(id).disabled = true;
  act(() => post("api/decide", { part: part.part, verdict }), () => toast(t("person.done", { part: part.part, label: word("label", verdict) })));
}

function showPart() {
  const part = shown();
  const asks = part === now.person && Boolean(part);
  $("back").hidden = asks || !now.pinned;
  if ($("person").dataset.part !== (asks ? part.part : "")) for (const id of ["person-accept", "person-reject"]) $(id).disabled = false;
  $("person").dataset.part = asks ? part.part : "";
  $("person").hidden = !asks;
  $("verdict").dataset.verdict = part?.verdict ?? "";
  setSign($("sign"), asks ? "person" : part?.verdict || "wait");
  setText("word", part ? word("verdict", part.verdict) : t("verdict.none"));
  setText("cause", part ? (part.cause === "model" ? reasonOf(part.reason) : `${word("cause", part.cause)}${part.reason ? ` · ${reasonOf(part.reason)}` : ""}`) : "");
  setText("about", asks ? t("face.waits_for_person.belt", { safe: t(`safe.${now.line?.safe_action || "reject"}`) }) : part ? aboutPart(part) : "");
  $("said").hidden = !part?.label;
  setText("said", part?.label ? t("said", { label: word("label", part.label) }) : "");
  setText("caption", part ? t(asks ? "picture.asks" : now.pinned ? "picture.kept" : "picture.last", { part: part.part }) : "");
  showPicture(part);
}

function aboutPart(part) {
  const ms = part.ms === null ? "" : t("part.ms", { ms: number(part.ms, part.ms < 100 ? 1 : 0) });
  const outcome = part.outcome && part.outcome !== "unknown" ? word("outcome", part.outcome) : "";
  return [t("part.name", { part: part.part }), ms, outcome, part.model].filter(Boolean).join(" · ");
}

function pictureOf(part, width) {
  if (!part?.has_picture) return null;
  const base = part.row ? `api/parts/${part.row}/` : "";
  return {
    url: part.row ? `${base}picture${width ? `?w=${width}` : ""}` : `api/view/${part.part}.jpg`,
    heatUrl: part.row ? `${base}heat` : part.has_heat ? `api/view/${part.part}.heat.png` : "",
    width: part.width, height: part.height, regions: part.regions, verdict: part.verdict,
  };
}

async function showPicture(part) {
  const picture = pictureOf(part, 0);
  const isThere = picture ? await view.show(picture) : false;
  if (part !== shown()) return;
  if (!isThere) view.clear();
  $("zoom-open").hidden = !isThere;
  $("no-picture").hidden = isThere;
  setText("no-picture", part ? t(part.row ? "picture.none_kept" : "picture.none") : t("picture.wait"));
  $("shot").alt = part ? t("picture.alt", { part: part.part, verdict: word("verdict", part.verdict) }) : "";
}

function pin(part) {
  now.pinned = part;
  showPart();
  showStrip();
}

// -- the shift ----------------------------------------------------------------------------------------------------------

function showShift() {
  const shift = now.shift;
  const { parts, reject, unsure } = shift.counts;
  setText("since", t("count.since", { time: timeOf(shift.since_ms) }));
  $("since").title = fullTime(shift.since_ms);
  setText("count-parts", number(parts));
  showRate("count-reject", reject, parts);
  showRate("count-unsure", unsure, parts);
  drawHour($("hour"), shift.hour);
  const hour = shift.hour.reduce((sum, minute) => ({ parts: sum.parts + minute.parts, reject: sum.reject + minute.reject }), { parts: 0, reject: 0 });
  const caption = t("hour.caption", { parts: number(hour.parts), rate: share(hour.reject, hour.parts) });
  setText("hour-caption", shift.trouble || caption);
  $("hour").setAttribute("aria-label", caption);
  refreshPinned();
  showStrip();
}

// What was picked goes on being told about: its gate, its label, its picture when it is on the disk.
function refreshPinned() {
  const fresh = now.pinned?.row && now.shift.rejects.find((part) => part.row === now.pinned.row);
  if (!fresh || JSON.stringify(fresh) === JSON.stringify(now.pinned)) return;
  if (wrongAbout === now.pinned) wrongAbout = fresh;
  now.pinned = fresh;
  showPart();
}

function showRate(id, count, parts) {
  const small = document.createElement("small");
  small.textContent = number(count);
  $(id).replaceChildren(`${share(count, parts)} `, small);
}

function showStrip() {
  const rejects = now.shift?.rejects ?? [];
  const shown = rejects.map((part) => `${part.row}${part.has_picture}${part.label}${part.outcome}`).join() + now.pinned?.row + document.documentElement.lang;
  $("strip-empty").hidden = rejects.length > 0;
  setText("strip-empty", t("strip.empty"));
  if ($("strip").dataset.shown === shown) return;
  $("strip").dataset.shown = shown;
  const focused = document.activeElement?.dataset?.row;
  $("strip").replaceChildren(...rejects.map(tile));
  if (!now.pinned) $("strip").scrollLeft = 0; // the newest is what counts, until one was picked
  if (focused) $("strip").querySelector(`[data-row="${focused}"]`)?.focus();
}

function tile(part) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.row = part.row;
  button.dataset.verdict = part.verdict;
  button.setAttribute("aria-pressed", String(now.pinned?.row === part.row));
  const said = [word("verdict", part.verdict), t("part.name", { part: part.part }), reasonOf(part.reason), ""].join(", ");
  button.append(Object.assign(document.createElement("span"), { className: "unseen", textContent: said }));
  if (part.has_picture) {
    const img = document.createElement("img");
    Object.assign(img, { src: `api/parts/${part.row}/picture?w=320`, alt: "", width: 320, height: 180, loading: "lazy" });
    button.append(img);
  } else {
    const blank = document.createElement("span");
    blank.className = "blank";
    blank.textContent = word("cause", part.cause);
    button.append(blank);
  }
  const under = document.createElement("span");
  under.className = "under";
  const time = document.createElement("time");
  time.textContent = timeOf(part.at_ms, true);
  time.title = fullTime(part.at_ms);
  under.append(sign(part.verdict), part.score === null ? "" : number(part.score, 2), time);
  if (part.label) under.append(Object.assign(document.createElement("b"), { className: "label", textContent: word("label_short", part.label) }));
  button.append(under);
  button.addEventListener("click", () => pin(now.pinned?.row === part.row ? null : part));
  item.append(button);
  return item;
}

function walkStrip(step) {
  const rejects = now.shift?.rejects ?? [];
  const at = rejects.findIndex((part) => part.row === now.pinned?.row);
  const next = at + step;
  if (next < 0) pin(null);
  else if (next < rejects.length) pin(rejects[next]);
}

// -- what to do about it ------------------------------------------------------------------------------------------------

async function act(what, done) {
  try {
    const answer = await what();
    done?.(answer);
  } catch (err) {
    toast(t("failed", { why: err.message }), { ms: 8000 });
  }
}

let wrongAbout = null;
let wrongTimer = 0;

function askWrong() {
  const part = now.pinned ?? now.part;
  if (!part || $("wrong").disabled) return;
  wrongAbout = part;
  if (!now.pinned) pin(part); // the next part must not take its place under the operator's eyes
  setText("wrong-title", t("wrong.title", { part: part.part, verdict: word("verdict", part.verdict) }));
  $("wrong-choice").showModal();
  const until = performance.now() + WRONG_MS;
  clearInterval(wrongTimer);
  wrongTimer = setInterval(() => {
    const left = until - performance.now();
    $("wrong-left").value = Math.max(0, (100 * left) / WRONG_MS);
    if (left <= 0) $("wrong-choice").close();
  }, 100);
}

function wrongClosed() {
  clearInterval(wrongTimer);
  if (now.pinned === wrongAbout && !wrongAbout?.row) pin(null);
  wrongAbout = null;
}

function sayLabel(label) {
  const part = wrongAbout;
  $("wrong-choice").close();
  if (!part) return;
  const about = part.row ? { row: part.row } : { part: part.part };
  act(
    () => say("api/label", { ...about, label, saw: true }),
    (said) => {
      const text = t("wrong.done", { part: part.part, label: word("label", label) });
      toast(text, { undo: () => act(() => say("api/undo", { number: said.number }), () => toast(t("undone"))) });
    },
  );
}

function askHold() {
  if ($("hold").disabled) return;
  if (now.line?.held_why) goOn();
  else $("hold-ask").showModal();
}

const goOn = () => act(() => post("api/resume"), () => toast(t("hold.gone")));

function hold() {
  $("hold-ask").close();
  act(() => post("api/hold"));
}

const redo = () => $("redo").disabled || act(() => post("api/rescan"), () => toast(t("redo.done")));
const talk = () => $("talk").disabled || act(() => post(now.line?.voice?.mode === "listening" ? "api/cancel" : "api/listen"));

let heatIsOn = false;
function switchHeat() {
  heatIsOn = !heatIsOn;
  $("heat-switch").setAttribute("aria-pressed", String(heatIsOn));
  view.switchHeat(heatIsOn);
  zoomed.switchHeat(heatIsOn);
}

async function openZoom() {
  const picture = pictureOf(shown(), 0);
  if (!picture) return;
  zoomed.showsHeat = heatIsOn;
  $("zoom").showModal();
  await zoomed.show(picture);
}

// -- words and keys -----------------------------------------------------------------------------------------------------

let announced = 0;
function announce(text, gapMs = 0) {
  if (performance.now() - announced < gapMs) return;
  announced = performance.now();
  setText("announce", text);
}

function showAll() {
  setText("language", nextLanguage().toUpperCase());
  $("language").setAttribute("aria-label", t("language", { language: nextLanguage().toUpperCase() }));
  $("zoom-open").setAttribute("aria-label", t("picture.zoom"));
  $("zoom-close").setAttribute("aria-label", t("picture.zoom_close"));
  $("strip").dataset.shown = "";
  showLine();
  showPart();
  if (now.shift) showShift();
  tick();
}

function tick() {
  const at = Date.now();
  setText("clock", timeOf(at));
  $("clock").title = `${fullTime(at)}${now.line?.is_clock_sure === false ? ` · ${t("clock.unsure")}` : ""}`;
}

const KEYS = { g: () => answer("accept"), b: () => answer("reject"),
  h: switchHeat, w: askWrong, r: redo, p: askHold, t: talk, z: undoLast,
  arrowright: () => walkStrip(1), arrowleft: () => walkStrip(-1), escape: () => pin(null),
};
const WRONG_KEYS = { g: () => sayLabel("accept"), b: () => sayLabel("reject") };

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, textarea")) return;
  const key = event.key.toLowerCase();
  const keys = $("wrong-choice").open ? WRONG_KEYS : document.querySelector("dialog[open]") ? {} : KEYS;
  if (keys[key]) {
    if (key !== "escape") event.preventDefault();
    keys[key]();
  }
}

function wire() {
  const on = (id, what, kind = "click") => $(id).addEventListener(kind, what);
  on("wrong", askWrong);
  on("person-accept", () => answer("accept"));
  on("person-reject", () => answer("reject"));
  on("was-good", () => sayLabel("accept"));
  on("was-bad", () => sayLabel("reject"));
  on("wrong-cancel", () => $("wrong-choice").close());
  on("wrong-choice", wrongClosed, "close");
  on("hold", askHold);
  on("hold-yes", hold);
  on("hold-no", () => $("hold-ask").close());
  on("face-go", goOn);
  on("redo", redo);
  on("talk", talk);
  on("back", () => pin(null));
  on("heat-switch", switchHeat);
  on("zoom-open", openZoom);
  on("zoom-close", () => $("zoom").close());
  on("language", async () => {
    await switchLanguage();
    showAll();
  });
  on("alarms-open", () => {
    const isOpen = $("alarms").hidden;
    $("alarms").hidden = !isOpen;
    $("alarms-open").setAttribute("aria-expanded", String(isOpen));
  });
  on("search", (event) => {
    event.preventDefault();
    const text = $("search-text").value.trim();
    if (text) act(() => post("api/search", { text }), () => ($("search-text").value = ""));
  }, "submit");
  document.addEventListener("keydown", pressed);
}

async function begin() {
  await Promise.all([loadWords(), loadSigns()]);
  showAll();
  wire();
  setInterval(tick, 5000);
  if (!(await whoAmI())) return;
  follow(
    {
      line: (line) => ((now.line = line), showLine()),
      part: partCame,
      waiting: personAsked,
      shift: (shift) => ((now.shift = shift), showShift()),
    },
    (isOffline) => {
      if (isOffline !== now.isOffline) {
        now.isOffline = isOffline;
        showLine();
      }
    },
  );
}

begin();
