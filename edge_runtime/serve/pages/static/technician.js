// The technician's page: one tab at a time, named by the address after #. A tab is a module that shows itself into the
// page and may ask to be shown again after a while.

import { whoAmI } from "./api.js";
import { make, notice } from "./elements.js";
import { loadSigns } from "./signs.js";
import { showConfig } from "./tech_config.js";
import { showEvents } from "./tech_events.js";
import { showHealth } from "./tech_health.js";
import { showModels } from "./tech_models.js";
import { showPart, showParts } from "./tech_parts.js";
import { showTrends } from "./tech_trends.js";
import { loadWords, nextLanguage, switchLanguage, t } from "./words.js";

const $ = (id) => document.getElementById(id);
const absent = (name) => async (box) => box.replaceChildren(notice(t(`tech.tab.${name}`), t(`tech.absent.${name}`)));
const TABS = {
  health: showHealth, parts: showParts, models: showModels, events: showEvents, trends: showTrends, config: showConfig,
  test: absent("test"), rollout: absent("rollout"), drift: absent("drift"), alarms: absent("alarms"),
};
let shown = 0;
let timer = 0;

async function show() {
  const turn = ++shown;
  clearTimeout(timer);
  const [name, ...rest] = (location.hash.slice(1) || "health").split("/");
  const tab = name in TABS ? name : "health";
  for (const link of $("tabs").children) {
    if (link.dataset.tab === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${t(`tech.tab.${tab}`)} · edge_runtime`;
  const box = $("tab");
  if (box.dataset.at !== location.hash) box.replaceChildren(make("p", { className: "quiet wait" }, t("tech.wait")));
  box.dataset.at = location.hash;
  const stage = make("div"); // what comes late must not wipe away another tab
  let again = 0;
  try {
    again = await (tab === "parts" && rest.length ? showPart(stage, rest[0]) : TABS[tab](stage));
  } catch (err) {
    stage.replaceChildren(notice(t("tech.trouble"), err.message));
  }
  if (turn !== shown) return;
  box.replaceChildren(...stage.childNodes);
  if (again) timer = setTimeout(() => !document.hidden && show(), again);
}

function showWords() {
  $("language").textContent = nextLanguage().toUpperCase();
  $("language").setAttribute("aria-label", t("language", { language: nextLanguage().toUpperCase() }));
  $("zoom-close").setAttribute("aria-label", t("picture.zoom_close"));
  $("tabs").setAttribute("aria-label", t("tech.tabs"));
  $("tabs").replaceChildren(...Object.keys(TABS).map((name) => make("a", { href: `#${name}`, "data-tab": name, className: "plain" }, t(`tech.tab.${name}`))));
}

async function begin() {
  await Promise.all([loadWords(), loadSigns()]);
  showWords();
  if (!(await whoAmI())) return;
  addEventListener("hashchange", show);
  document.addEventListener("visibilitychange", () => document.hidden || show());
  $("zoom-close").addEventListener("click", () => $("zoom").close());
  $("confirm-no").addEventListener("click", () => $("confirm").close());
  $("language").addEventListener("click", async () => {
    await switchLanguage();
    showWords();
    show();
  });
  show();
}

begin();
