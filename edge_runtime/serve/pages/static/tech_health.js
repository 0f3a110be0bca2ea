// Health: what `doctor` says, the worst first, each with since when and what to do.

import { get, may } from "./api.js";
import { make, notice } from "./elements.js";
import { sign } from "./signs.js";
import { fullTime, t, timeOf } from "./words.js";

const AGAIN_MS = 15000;
const SOON_MS = 1000; // while doctor looks
const SIGNS = { fail: "fault", warn: "mark", ok: "accept" };

export async function showHealth(box) {
  const told = await get("api/health");
  const bad = told.findings.filter((one) => one.state !== "ok");
  const good = told.findings.filter((one) => one.state === "ok");
  const when = told.at_ms ? t("tech.health.at", { time: timeOf(told.at_ms, true) }) : "";
  box.append(make("div", { className: "bar" }, make("p", { className: "quiet" }, [when, told.is_looking ? t("tech.health.looking") : ""].filter(Boolean).join(" · ")), bundle()));
  if (told.trouble) box.append(notice(t("tech.health.trouble"), told.trouble));
  if (!told.at_ms && !told.trouble) box.append(notice(t("tech.health.first"), t("tech.health.first_means")));
  if (told.at_ms && !bad.length) box.append(notice(t("tech.health.well"), t("tech.health.well_means")));
  if (bad.length) box.append(make("ul", { className: "findings panel" }, ...bad.map(line)));
  if (good.length) {
    box.append(make("details", { className: "panel good-ones", open: !bad.length }, make("summary", {}, t("tech.health.good", { count: good.length })), make("ul", { className: "findings" }, ...good.map(line))));
  }
  return told.is_looking ? SOON_MS : AGAIN_MS;
}

function line(one) {
  const since = make("span", { className: "quiet since", title: fullTime(one.since_ms) }, t("tech.health.since", { time: timeOf(one.since_ms) }));
  return make("li", { "data-state": one.state },
    sign(SIGNS[one.state] ?? "mark"),
    make("div", {}, make("p", {}, make("b", {}, one.name), " ", one.state === "ok" ? "" : since), make("p", { lang: "en" }, one.detail), one.fix ? make("p", { className: "fix" }, make("span", { className: "quiet" }, t("tech.do"), " "), make("span", { lang: "en" }, one.fix)) : null));
}

export const bundle = () => (may("maintain") ? make("a", { className: "act small", href: "api/bundle", download: "support.tar.gz" }, t("tech.bundle")) : null);
