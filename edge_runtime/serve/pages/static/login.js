// Who are you? The token that the box tells, and a name for what is said and done.

import { logIn } from "./api.js";
import { loadWords, t } from "./words.js";

const $ = (id) => document.getElementById(id);

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await logIn($("token").value, $("name").value);
    location.replace("./");
  } catch (err) {
    $("failed").hidden = false;
    $("failed").textContent = t("failed", { why: err.message });
  }
});

loadWords();
