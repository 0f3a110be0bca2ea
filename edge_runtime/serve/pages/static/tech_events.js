// Events: what happened on the box that is not about one part, the newest first.

import { get } from "./api.js";
import { make, notice } from "./elements.js";
import { sign } from "./signs.js";
import { bundle } from "./tech_health.js";
import { fullTime, t, timeOf } from "./words.js";

const SIGNS = { error: "fault", warning: "mark", info: "run" };
const AGAIN_MS = 10000;
let severity = "";

export async function showEvents(box) {
  const told = await get(`api/journal/events?severity=${severity}`);
  const chip = (value) =>
    make("button", { type: "button", className: "plain", "aria-pressed": String(severity === value), onclick: () => {
      severity = value;
      dispatchEvent(new HashChangeEvent("hashchange"));
    } }, t(`tech.events.${value || "all"}`));
  box.append(make("div", { className: "bar" }, make("div", { className: "chips", role: "group", "aria-label": t("tech.events.how_bad") }, ...["", "error", "warning", "info"].map(chip)), bundle()));
  for (const loss of told.losses) box.append(notice(t("tech.events.loss", { count: loss.count, what: loss.what }), loss.why));
  if (!told.events.length) box.append(notice(t("tech.events.none"), t("tech.events.none_means")));
  else box.append(make("ul", { className: "findings panel" }, ...told.events.map(line)));
  return AGAIN_MS;
}

function line(one) {
  const detail = Object.entries(one.detail).filter(([, value]) => value !== "" && value !== null).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
  const at = make("time", { className: "quiet", title: fullTime(one.at_ms) }, `${new Date(one.at_ms).toLocaleDateString(document.documentElement.lang, { day: "2-digit", month: "2-digit" })} ${timeOf(one.at_ms, true)}`);
  return make("li", { "data-state": { error: "fail", warning: "warn" }[one.severity] ?? "ok" }, sign(SIGNS[one.severity] ?? "mark"),
    make("div", {}, make("p", {}, make("b", {}, one.kind), " ", at), make("p", { lang: "en" }, one.says), make("p", { className: "quiet", lang: "en" }, detail)));
}
