// The page of a service: one user, or a history that is made up here; what comes next; and what that rests on.
// It only reads. A made-up history is sent along and leaves no trace.

const at = (id) => document.getElementById(id);
let key = sessionStorage.getItem("key") ?? "";
let user = null; // whom is asked about, or null where `trail` is
let trail = []; // items, the oldest first
let asked = 0; // answers that come late, for what is no longer asked, are left alone

async function call(path, body) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const sent = body && { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } };
  const answer = await fetch(path, sent ?? { headers });
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  if (answer.status === 401) enter();
  throw Object.assign(new Error(found.detail ?? `the service answered ${answer.status}`), { status: answer.status });
}

const node = (name, ...inside) => {
  const made = document.createElement(name);
  made.append(...inside);
  return made;
};
const named = (one, ...facts) => {
  const beside = [one.title && String(one.item), ...facts].filter(Boolean).join(" · ");
  return [one.title || String(one.item), ...(beside ? [node("small", beside)] : [])];
};
const put = (id, nodes) => at(id).replaceChildren(...nodes);
const share = (value, most = 1) => Object.assign(document.createElement("meter"), { max: most || 1, value: Math.max(value, 0) });
const digits = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));

function trouble(error) {
  at("trouble").hidden = !error;
  at("trouble").textContent = error ? error.message : "";
}

function enter() {
  key = "";
  sessionStorage.removeItem("key");
  at("enter").hidden = false;
  at("key").focus();
}

// Times go up by a minute, for models that read them.
const made_up = () => trail.map(({ item }, place) => ({ item, time: Math.floor(Date.now() / 1000) - 60 * (trail.length - place) }));

async function show() {
  const mine = ++asked;
  trouble(null);
  try {
    const choice = { k: Number(at("count").value) || 10, leave_out_seen: at("unseen").checked };
    const of = user === null ? { history: made_up() } : { user };
    const [held, best] = await Promise.all([
      user === null ? { events: trail } : call(`users/${encodeURIComponent(user)}`),
      call("recommendations", { ...of, ...choice }),
    ]);
    if (mine !== asked) return;
    document.querySelector("main").hidden = false;
    told(held, new Set(best.unknown.map(String)));
    put("best", best.recommendations.map((one) => {
      const button = node("button", ...named(one, `score ${one.score.toFixed(3)}`));
      button.addEventListener("click", () => why(one, button));
      return node("li", button);
    }));
    const first = at("best").querySelector("button");
    if (first) await why(best.recommendations[0], first);
    else put("why", []), put("parts", []), put("near", []);
  } catch (error) {
    if (mine !== asked) return;
    document.querySelector("main").hidden = true;
    trouble(error.status === 404 && user !== null ? new Error(`Nothing is held of user ${user}.`) : error);
  }
}

function told(held, unknown) {
  at("held").textContent = user === null
    ? "Made up here, the newest first; nothing of it is kept."
    : `${held.seen.toLocaleString()} events of user ${held.user}, ${held.bytes.toLocaleString()} bytes in all; of those kept the newest first.`;
  put("events", held.events.map((one, place) => {
    const when = typeof one.time === "number" ? new Date(1000 * one.time).toISOString().slice(0, 19).replace("T", " ") : null;
    const session = one.session != null && `session ${one.session}`;
    const line = node("li", ...named(one, when, session, unknown.has(String(one.item)) && "not known to the model"));
    line.classList.toggle("begins", place > 0 && one.session !== held.events[place - 1].session);
    if (user === null) {
      const out = Object.assign(node("button", "×"), { title: "Take out", type: "button" });
      out.setAttribute("aria-label", `Take out ${one.title ?? one.item}`);
      out.addEventListener("click", () => { trail.splice(place, 1); trail.length ? show() : location.reload(); });
      line.prepend(out);
    }
    return line;
  }).reverse());
}

async function why(one, button) {
  const mine = ++asked;
  for (const other of at("best").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
  at("of").textContent = `Of ${one.title ?? one.item}: the weight of each event, the newest first, and what else the model says.`;
  const asking = user === null
    ? call("explanations", { history: made_up(), item: one.item })
    : call(`explanations?user=${encodeURIComponent(user)}&item=${encodeURIComponent(one.item)}`);
  const [reasons, near] = await Promise.allSettled([asking, call(`items/${encodeURIComponent(one.item)}/similar`)]);
  if (mine !== asked) return;
  const found = reasons.value ?? { attention: null, parts: {} };
  const weights = found.attention ?? [];
  const most = Math.max(...weights.map(({ weight }) => weight), 0);
  put("why", weights.map((event) => node("li", ...named(event, `${(100 * event.weight).toFixed(1)} %`), share(event.weight, most))).reverse());
  put("parts", Object.entries(found.parts).flatMap(([name, value]) => [node("dt", name.replaceAll("_", " ")), ...drawn(value)]));
  if (!reasons.value) at("of").textContent = reasons.reason.message;
  else if (!weights.length && !at("parts").children.length) at("of").textContent = "This model gives no reasons.";
  const alike = (near.value?.items ?? []).slice(0, 5);
  at("h-near").hidden = !alike.length;
  put("near", alike.map((item) => node("li", ...named(item))));
}

// A number, a row of numbers as bars against the largest, rows of rows one below the other; anything else as it is.
function drawn(value) {
  if (typeof value === "number") return [node("dd", digits(value), ...(value >= 0 && value <= 1 ? [share(value)] : []))];
  if (!Array.isArray(value)) return [node("dd", JSON.stringify(value))];
  if (value.some((one) => typeof one !== "number")) return value.flatMap(drawn);
  const cells = node("span", ...value.map((one) => Object.assign(share(one, Math.max(...value)), { title: digits(one) })));
  cells.className = "cells";
  return [node("dd", value.length > 6 ? `${value.length} values, at most ${digits(Math.max(...value))}` : value.map(digits).join("  ·  "), cells)];
}

let waiting = 0;
const finds = new Map(); // what the list shows -> the item
at("words").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => search().catch(trouble), 150);
});
async function search() {
  const { items } = await call(`items?q=${encodeURIComponent(at("words").value)}`);
  for (const one of items) finds.set(one.title ? `${one.title} (${one.item})` : String(one.item), one);
  put("found", items.map((one) => Object.assign(document.createElement("option"), { value: one.title ? `${one.title} (${one.item})` : String(one.item) })));
}

at("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = at("words").value;
  if (!finds.has(words)) await search().catch(trouble);
  const [first] = at("found").children;
  const item = finds.get(words) ?? (first && finds.get(first.value));
  if (!item) return trouble(new Error(`No item is called ${words}.`));
  if (user !== null) [user, trail] = [null, []];
  trail.push(item);
  at("words").value = at("user").value = "";
  history.replaceState(null, "", location.pathname);
  show();
});
at("who").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `user=${encodeURIComponent(at("user").value)}`;
  if (user === at("user").value) show(); // the same once more: no change of address, so nobody else would ask
});
at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value;
  sessionStorage.setItem("key", key);
  at("enter").hidden = true;
  begin();
});
for (const id of ["count", "unseen"]) at(id).addEventListener("change", () => (user !== null || trail.length) && show());
addEventListener("hashchange", begin);

async function begin() {
  trouble(null);
  try {
    const { model, items, version } = await call(".");
    at("about").textContent = `The model is ${model}, which knows ${items.toLocaleString()} items; Foretaste ${version}.`;
    const wanted = new URLSearchParams(location.hash.slice(1)).get("user");
    if (wanted) at("user").value = user = wanted;
    if (user !== null || trail.length) await show();
  } catch (error) {
    at("about").textContent = "";
    if (error.status !== 401) trouble(error);
  }
}
begin();
