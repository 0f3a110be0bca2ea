// Configuration: every key with the value in force.

import { get, may } from "./api.js";
import { make, notice } from "./elements.js";
import { t } from "./words.js";

export async function showConfig(box) {
  if (!may("maintain")) {
    box.append(notice(t("tech.tab.config"), t("tech.not_allowed")));
    return;
  }
  const { settings } = await get("api/settings");
  const rows = Object.entries(settings).map(([key, value]) => make("tr", {}, make("th", { scope: "row" }, key), make("td", {}, JSON.stringify(value))));
  const find = make("input", { id: "find-key", type: "search", "aria-label": t("tech.config.find"), placeholder: t("tech.config.find"), oninput: (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  } });
  box.append(notice(t("tech.config.title"), t("tech.config.means")), find, make("div", { className: "panel keys" }, make("table", {}, make("tbody", {}, ...rows))));
}
