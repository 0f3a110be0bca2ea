import { notice } from "./elements.js";
import { t } from "./words.js";

export async function showTrends(box) {
  box.append(notice(t("tech.tab.trends"), t("tech.absent.trends")));
}
