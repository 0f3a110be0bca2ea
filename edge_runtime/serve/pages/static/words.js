// The message catalogue, and everything that a language says its own way: numbers, times.

import { get } from "./api.js";

const KEPT = "edge-language";
let texts = {};
let language = "en";
let languages = [];

export async function loadWords(asked = localStorage.getItem(KEPT) || "") {
  const told = await get(`api/messages?lang=${encodeURIComponent(asked)}`);
  ({ messages: texts, language, languages } = told);
  document.documentElement.lang = language;
  fill(document);
}

// The text of a name, with {places} filled in; the name itself where the catalogue has none.
export const t = (name, places = {}) =>
  (texts[name] ?? name).replace(/\{(\w+)\}/g, (whole, place) => (place in places ? places[place] : whole));

export const has = (name) => name in texts;

// The word for a value of the box, such as a cause; the value itself where there is none.
export const word = (kind, value) => (has(`${kind}.${value}`) ? t(`${kind}.${value}`) : String(value).replaceAll("_", " "));

function fill(root) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-placeholder]")) element.placeholder = t(element.dataset.placeholder);
}

export const nextLanguage = () => languages[(languages.indexOf(language) + 1) % languages.length];

export async function switchLanguage() {
  localStorage.setItem(KEPT, nextLanguage());
  await loadWords();
}

export const number = (value, digits = 0) =>
  value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });

// 0.0214 -> "2.1 %"; a share that is not nothing does not read as nothing.
export function share(part, whole) {
  if (!whole) return "–";
  const percent = (100 * part) / whole;
  return `${number(percent, percent > 0 && percent < 1 ? 2 : 1)} %`;
}

export const timeOf = (ms, seconds = false) =>
  new Date(ms).toLocaleTimeString(language, {
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
    ...(seconds ? { second: "2-digit" } : {}),
  });

// With date, seconds and zone: what a time says when it is pointed at.
export const fullTime = (ms) =>
  new Date(ms).toLocaleString(language, { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" });

// "scratch 0.99 >= 0.96" as people say it; what has another form stays as it is.
export function reasonOf(reason) {
  const over = /^(.+) ([\d.]+) (>=|<) ([\d.]+)$/.exec(reason);
  if (over) return t(over[3] === ">=" ? "reason.over" : "reason.under", { what: word("defect", over[1]), score: over[2], limit: over[4] });
  const between = /^(.+) ([\d.]+) between ([\d.]+) and ([\d.]+)$/.exec(reason);
  if (between) return t("reason.between", { what: word("defect", between[1]), score: between[2], low: between[3], high: between[4] });
  return reason;
}
