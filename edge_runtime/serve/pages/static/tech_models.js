// Models: what runs, what waits, what ran before, each with one button that says what it will do.

import { get, may, post } from "./api.js";
import { button, facts, make, notice } from "./elements.js";
import { toast } from "./toast.js";
import { number, t } from "./words.js";

const $ = (id) => document.getElementById(id);
const VERBS = { candidate: "promote", previous: "rollback" };

export async function showModels(box) {
  const told = await get("api/models");
  const active = told.cards.find((card) => card.place === "active").model;
  if (!told.is_running) box.append(notice(t("tech.models.stopped"), t("tech.models.stopped_means")));
  box.append(make("div", { className: "cards" }, ...told.cards.map((card) => show(card, active))));
  box.append(make("details", { className: "panel good-ones" }, make("summary", {}, t("tech.models.all", { count: told.models.length })), make("ul", {}, ...told.models.map((one) => make("li", {}, make("b", {}, one.model), ` ${one.title || one.problem || ""}`)))));
}

function show(card, active) {
  const about = card.about;
  const limits = about?.thresholds;
  return make("section", { className: "panel card model", "data-place": card.place },
    make("h2", { className: "quiet" }, t(`tech.models.${card.place}`)),
    make("p", { className: "label" }, card.model || t(`tech.models.no_${card.place}`)),
    about ? facts([
      [t("tech.models.about"), about.title ?? ""],
      [t("tech.models.limits"), limits ? t("tech.part.limits", { low: number(limits.accept_below, 3), high: number(limits.reject_at, 3) }) : ""],
      [t("tech.models.size"), about.bytes ? `${number(about.bytes / 1e6, 1)} MB` : ""],
      [t("tech.models.licence"), about.licence ?? ""],
      [t("tech.models.problem"), about.problem ?? ""],
      [t("tech.models.digest"), card.digest.slice(0, 12)],
    ]) : make("p", { className: "quiet" }, card.model ? t("tech.models.gone") : t(`tech.models.no_${card.place}_means`)),
    act(card, active));
}

function act(card, active) {
  const verb = VERBS[card.place];
  if (!verb || !card.model) return null;
  if (!may("maintain")) return make("p", { className: "quiet" }, t("tech.not_allowed"));
  return button(t(`tech.models.${verb}`, { model: card.model }), () => ask(card, verb, active), "act small");
}

function ask(card, verb, active) {
  $("confirm-title").textContent = t(`tech.models.${verb}`, { model: card.model });
  $("confirm-means").textContent = t("tech.models.means", { before: active, after: card.model });
  const yes = $("confirm-yes").cloneNode(false); // without the listener of the question before
  yes.textContent = t("tech.models.yes");
  $("confirm-yes").replaceWith(yes);
  yes.addEventListener("click", async () => {
    $("confirm").close();
    toast(t("tech.models.wait"), { ms: 60000 });
    try {
      const told = await post("api/models/switch", { verb, version: card.model.split("@")[1], digest: card.digest, why: "" });
      toast(t("tech.models.done", { model: told.now }));
    } catch (err) {
      toast(t("failed", { why: err.message }), { ms: 10000 });
    }
    dispatchEvent(new HashChangeEvent("hashchange"));
  });
  $("confirm").showModal();
}
