// Parts: found by what they were; and the whole story of one, from photo-eye to gate, with "judge again with ...".

import { get, may, post } from "./api.js";
import { button, facts, make, notice } from "./elements.js";
import { PictureView } from "./picture.js";
import { sign } from "./signs.js";
import { fullTime, has, number, reasonOf, t, timeOf, word } from "./words.js";

const CHOICES = {
  verdict: ["accept", "reject", "unsure"],
  cause: ["model", "rule", "human", "deadline", "no_frame", "overload", "engine_fault", "link_fault", "invalid_image"],
  outcome: ["passed", "fired", "defaulted", "unknown"],
};
const asked = {}; // what the form says, kept while the page is open
const $ = (id) => document.getElementById(id);
const label = (kind, value) => (has(`tech.${kind}.${value}`) ? t(`tech.${kind}.${value}`) : word(kind, value));
const day = (ms) => `${new Date(ms).toLocaleDateString(document.documentElement.lang, { day: "2-digit", month: "2-digit" })} ${timeOf(ms, true)}`;

// -- search -------------------------------------------------------------------------------------------------------------

export async function showParts(box) {
  const list = make("div", { className: "found" });
  box.append(form(() => fill(list)), list);
  await fill(list);
}

function form(search) {
  const field = (name, input) => make("label", { className: "field" }, make("span", { className: "quiet" }, t(`tech.parts.${name}`)), input);
  const keep = (name) => (event) => {
    asked[name] = event.target.value;
    search();
  };
  const selects = Object.entries(CHOICES).map(([kind, values]) =>
    field(kind, make("select", { id: `by-${kind}`, onchange: keep(kind) }, make("option", { value: "" }, t("tech.parts.any")), ...values.map((value) => make("option", { value, selected: asked[kind] === value }, label(kind, value))))));
  const times = ["since", "until"].map((name) => field(name, make("input", { id: `by-${name}`, type: "datetime-local", value: asked[name] ?? "", onchange: keep(name) })));
  const part = field("part", make("input", { id: "by-part", type: "search", maxlength: "16", value: asked.part ?? "", autocomplete: "off", placeholder: "7f38-28", onchange: keep("part") }));
  return make("form", { className: "panel by", role: "search", onsubmit: (event) => event.preventDefault() }, part, ...selects, ...times);
}

async function fill(list, before = "") {
  const words = new URLSearchParams();
  for (const name of ["part", ...Object.keys(CHOICES)]) if (asked[name]) words.set(name, asked[name]);
  for (const name of ["since", "until"]) if (asked[name]) words.set(`${name}_ms`, String(new Date(asked[name]).getTime()));
  if (before) words.set("before", before);
  let told;
  try {
    told = await get(`api/parts?${words}`);
  } catch (err) {
    list.replaceChildren(notice(t("tech.parts.refused"), err.message));
    return;
  }
  if (!before) list.replaceChildren();
  list.querySelector(".more")?.remove();
  if (!told.parts.length && !before) list.append(notice(t("tech.parts.none"), t("tech.parts.none_means")));
  else list.append(make("ul", { className: "panel rows" }, ...told.parts.map(row)));
  if (told.before) list.append(button(t("tech.parts.more"), () => fill(list, told.before), "act small more"));
}

const row = (one) =>
  make("li", {}, make("a", { href: `#parts/${one.row}`, "data-verdict": one.verdict },
    sign(one.verdict || "wait"),
    make("b", {}, one.verdict ? t(`verdict.${one.verdict}`) : t("tech.parts.on_way")),
    make("span", { className: "name" }, one.part),
    make("time", { className: "quiet", title: fullTime(one.at_ms) }, day(one.at_ms)),
    make("span", { className: "why" }, one.cause === "model" ? reasonOf(one.reason) : one.cause ? word("cause", one.cause) : ""),
    make("span", { className: "quiet end" }, label("outcome", one.outcome))));

// -- one part -----------------------------------------------------------------------------------------------------------

export async function showPart(box, which) {
  const part = await get(`api/parts/${encodeURIComponent(which)}`);
  box.append(
    make("div", { className: "bar" }, make("a", { className: "plain", href: "#parts" }, `← ${t("tech.tab.parts")}`), make("span", { className: "quiet figures", title: fullTime(part.at_ms) }, fullTime(part.at_ms))),
    make("div", { className: "story" }, picture(part), verdict(part), line(part), about(part), said(part), again(part)));
}

function picture(part) {
  if (!part.has_picture) return notice(t("picture.none_kept"), t("tech.part.no_picture"));
  const shot = make("img", { alt: t("part.name", { part: part.part }) });
  const heat = make("img", { className: "heat", alt: "", hidden: true });
  const marks = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  marks.setAttribute("class", "marks");
  marks.setAttribute("aria-hidden", "true");
  const view = new PictureView({ shot, heat, marks });
  const url = `api/parts/${part.id}/picture`;
  heat.addEventListener("error", () => (heat.hidden = true));
  view.show({ url, heatUrl: `api/parts/${part.id}/heat`, width: 0, height: 0, regions: part.regions, verdict: part.verdict });
  const zoom = () => {
    $("zoom-shot").src = url;
    $("zoom").showModal();
  };
  const flip = (event) => {
    view.switchHeat(!view.showsHeat);
    event.currentTarget.setAttribute("aria-pressed", String(view.showsHeat));
  };
  return make("figure", { className: "panel picture" },
    make("div", { className: "frame" }, make("button", { type: "button", className: "shot", "aria-label": t("picture.zoom"), onclick: zoom }, shot, heat, marks)),
    make("figcaption", {}, make("span", {}, t("part.name", { part: part.part })), make("button", { type: "button", id: "heat-switch", className: "plain", "aria-pressed": "false", onclick: flip }, t("picture.heat"))));
}

function verdict(part) {
  const said = part.verdict ? t(`verdict.${part.verdict}`) : t("tech.parts.on_way");
  return make("section", { className: "panel card" },
    make("h2", { className: "word", "data-verdict": part.verdict ?? "" }, sign(part.verdict || "wait"), said),
    make("p", {}, part.cause ? word("cause", part.cause) : "", part.reason ? ` · ${reasonOf(part.reason)}` : ""),
    part.score === null ? null : scale(part));
}

// The score on its way from 0 to 1, between the limits that were in force.
function scale(part) {
  const at = (value) => `${100 * Math.min(1, Math.max(0, value))}%`;
  const bar = make("div", { className: "scale", "aria-hidden": "true" });
  const put = (className, value) => {
    const mark = make("i", { className });
    mark.style.left = at(value);
    bar.append(mark);
  };
  if (part.limits) {
    put("limit", part.limits.accept_below);
    put("limit", part.limits.reject_at);
  }
  put("score", part.score);
  const limits = part.limits ? t("tech.part.limits", { low: number(part.limits.accept_below, 3), high: number(part.limits.reject_at, 3) }) : t("tech.part.no_limits");
  return make("div", {}, bar, make("p", { className: "quiet figures" }, `${t("tech.part.score", { score: number(part.score, 3) })} · ${limits}`));
}

// From photo-eye to gate: when each thing was, and how long each stage took, on one scale up to the verdict.
function line(part) {
  const moments = part.moments_ms;
  const ms = (value) => (value === null ? "–" : `${number(value, value < 1000 ? 1 : 0)} ms`);
  const whole = moments.verdict || 1;
  let from = moments.frame ?? 0;
  const bar = (start, length, className) => {
    const fill = make("i", { className });
    fill.style.left = `${Math.min(100, Math.max(0, (100 * start) / whole))}%`;
    fill.style.width = `${Math.min(100, Math.max(0.5, (100 * length) / whole))}%`;
    return make("span", { className: "track", "aria-hidden": "true" }, fill);
  };
  const rows = [[t("tech.time.eye"), ms(0), bar(0, 0, "moment")], [t("tech.time.frame"), ms(moments.frame), bar(moments.frame ?? 0, 0, "moment")]];
  for (const [stage, took] of Object.entries(part.timings_ms)) {
    rows.push([has(`tech.stage.${stage}`) ? t(`tech.stage.${stage}`) : stage.replaceAll("_", " "), ms(took), bar(from, took, "stage")]);
    from += took;
  }
  rows.push([t("tech.time.verdict"), ms(moments.verdict), bar(whole, 0, "moment")], [t("tech.time.gate"), ms(moments.gate), null]);
  return make("section", { className: "panel card line" }, make("h2", {}, t("tech.part.line")), make("ol", {}, ...rows.map(([name, took, track]) => make("li", {}, make("span", {}, name), make("span", { className: "figures" }, took), track))), make("p", { className: "quiet" }, t("tech.part.line_means")));
}

const about = (part) =>
  make("section", { className: "panel card" }, make("h2", {}, t("tech.part.about")), facts([
    [t("tech.parts.outcome"), label("outcome", part.outcome)],
    [t("tech.part.model"), `${part.model ?? "–"} ${(part.model_digest ?? "").slice(0, 12)}`],
    [t("tech.part.origin"), part.origin ?? ""],
    [t("tech.part.settings"), part.config_digest.slice(0, 12)],
    [t("tech.part.encoder"), part.encoder === null ? "–" : number(part.encoder)],
    [t("tech.part.run"), `${part.run}${part.run_started_ms ? `, ${fullTime(part.run_started_ms)}` : ""}`],
    [t("tech.part.row"), String(part.id)],
    [t("tech.part.clock"), part.time_quality === "synced" ? t("tech.part.clock_sure") : t("clock.unsure")],
  ]));

function said(part) {
  const one = (saying) => make("li", {}, `${timeOf(saying.at_ms)} ${saying.by}: ${saying.label ? t(`label.${saying.label}`) : t("tech.part.taken_back")}`, saying.defect ? ` (${word("defect", saying.defect)})` : "", saying.comment ? ` – ${saying.comment}` : "");
  return make("section", { className: "panel card" }, make("h2", {}, t("tech.part.labels")), part.labels.length ? make("ul", {}, ...part.labels.map(one)) : make("p", { className: "quiet" }, t("tech.part.no_labels")), part.is_disputed ? make("p", {}, t("tech.part.disputed")) : null);
}

function again(part) {
  const card = make("section", { className: "panel card again" }, make("h2", {}, t("tech.again.title")));
  if (!part.has_picture || !may("maintain")) {
    card.append(make("p", { className: "quiet" }, t(part.has_picture ? "tech.not_allowed" : "tech.again.no_picture")));
    return card;
  }
  const choice = make("select", { id: "again-model", "aria-label": t("tech.again.title") }, make("option", { value: "" }, t("tech.again.same")));
  get("api/models").then(({ models }) => choice.append(...models.filter((one) => !one.problem && (["scratch", "vision", "anomaly"].some((kind) => String(one.kind).includes(kind)) || one.thresholds)).map((one) => make("option", { value: one.model }, one.model)))).catch(() => {});
  const result = make("p", { id: "again-result", role: "status" });
  const judge = async (event) => {
    event.currentTarget.disabled = true;
    result.textContent = t("tech.again.wait");
    try {
      const told = await post("api/judge", { row: part.id, model: choice.value });
      const now = told.replayed;
      result.textContent = t(told.is_same ? "tech.again.is_same" : "tech.again.differs", { model: told.model, verdict: t(`verdict.${now.verdict}`), reason: reasonOf(now.reason) }) + (told.is_lossless ? "" : ` ${t("tech.again.jpeg")}`);
    } catch (err) {
      result.textContent = t("failed", { why: err.message });
    }
    go.disabled = false;
  };
  const go = button(t("tech.again.go"), judge, "act small");
  card.append(make("div", { className: "with" }, choice, go), result);
  return card;
}
