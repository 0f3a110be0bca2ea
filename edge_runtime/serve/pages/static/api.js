// Asking the box. Every address is relative to the page, so that it works under a sub-path behind a proxy.

let me = null;

export class Refused extends Error {
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

async function answer(response) {
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, told.error || response.statusText);
  return told;
}

export const get = async (path) => answer(await fetch(path, { headers: { Accept: "application/json" } }));

// Who the browser is taken for; null on the way to the login page.
export async function whoAmI() {
  me = await get("api/me");
  if (!me.roles.includes("view")) {
    location.replace("login");
    return null;
  }
  return me;
}

export const may = (role) => Boolean(me && me.roles.includes(role));

// A write. The session of a box that was started anew is unknown there: it is asked for once more.
export async function post(path, words = {}) {
  if (!me) await whoAmI();
  try {
    return await send(path, words);
  } catch (err) {
    if (!(err instanceof Refused) || err.status !== 403 || !(await whoAmI())) throw err;
    return send(path, words);
  }
}

const TRIES = 5;

// A label. It has a name of its own, so that it may be said until an answer comes: the box keeps one of that name.
export async function say(path, words) {
  const ref = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  for (let tried = 1; ; tried += 1) {
    try {
      return await post(path, { ...words, ref });
    } catch (err) {
      if (err instanceof Refused || tried === TRIES) throw err;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** tried));
    }
  }
}

const send = async (path, words) =>
  answer(
    await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": me.word },
      body: JSON.stringify(words),
    }),
  );

export async function logIn(token, name) {
  const headers = { "Content-Type": "application/json" };
  me = await answer(await fetch("api/login", { method: "POST", headers, body: JSON.stringify({ token, name }) }));
  return me;
}
