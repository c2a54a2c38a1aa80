// What HTML cannot do: Airflow's theme, links out of Airflow's frame, and looking again while a run goes on.
"use strict";

// Airflow's document around the frame; null where there is none, or another site's: nothing of that is ours to see.
const outside = window.frameElement?.ownerDocument ?? null;

function followTheme() {
  const dark = outside
    ? outside.documentElement.classList.contains("dark")
    : window.matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
}

followTheme();
if (outside) new MutationObserver(followTheme).observe(outside.documentElement, { attributeFilter: ["class"] });
else window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", followTheme);

// Links to Airflow's own pages: the frame may not navigate the window, but a link within the parent may.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-airflow]");
  if (!link || !outside || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const twin = outside.createElement("a");
  twin.href = link.href;
  outside.body.append(twin);
  twin.click();
  twin.remove();
});

// The address of a page within Airflow, as which its own frame shows it. That of the frame alone is a bare page.
const { airflow, framed } = document.documentElement.dataset;
const within = () => framed + location.pathname + location.search + location.hash;

// So a bare page, opened from a link that was copied, goes there: if Airflow shows its plugins to whoever looks.
if (framed && window.top === window)
  fetch(`${airflow}/api/v2/plugins?limit=1`).then((answer) => answer.ok && location.replace(within()), () => {});

const copyLink = document.getElementById("copy-link");
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without TLS there is no clipboard
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    copyLink.focus();
  }
}
if (copyLink) {
  copyLink.hidden = false;
  copyLink.addEventListener("click", async () => {
    await copy(outside ? location.origin + within() : location.href);
    copyLink.textContent = "Link copied";
    setTimeout(() => (copyLink.textContent = "Copy link"), 3000);
  });
}

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  if (event.target.method === "post") event.target.dataset.sent = "1";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

// Ages go on. The words are those of ingest/airflow/ui/shown.py.
function age(seconds) {
  const passed = Math.abs(seconds);
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    const number = Math.floor(passed / length);
    if (!number) continue;
    const words = `${number.toLocaleString("en-US")} ${unit}${number === 1 ? "" : "s"}`;
    return seconds < 0 ? `in ${words}` : `${words} ago`;
  }
  return seconds < 0 ? "in a moment" : "just now";
}
function tick() {
  for (const one of document.querySelectorAll("time[datetime]")) {
    const words = age((Date.now() - Date.parse(one.dateTime)) / 1000);
    if (one.textContent !== words) one.textContent = words;
  }
}
setInterval(tick, 10_000);
window.addEventListener("pageshow", tick);

// What came in since is not put under somebody's eyes: a button says that it is there. But a page that was behind when
// it was opened is brought up to date by itself, as long as nobody has done anything in it.
const fresh = document.getElementById("fresh");
const main = document.querySelector("main[data-fresh]");
function told(page) {
  const copied = page.querySelector("main").cloneNode(true);
  copied.querySelectorAll("time").forEach((one) => one.remove());
  return copied.textContent;
}
if (fresh && main) {
  let shown = told(document);
  let touched = false;
  for (const name of ["pointerdown", "keydown", "wheel", "touchstart"])
    window.addEventListener(name, () => (touched = true), { once: true, passive: true });
  fresh.addEventListener("click", () => location.reload());

  const look = async () => {
    if (document.hidden) return;
    const answer = await fetch(location.href);
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const itsMain = page.querySelector("main[data-fresh]");
    const its = itsMain ? told(page) : shown;
    if (its !== shown) {
      if (touched || !main.dataset.behind) return (fresh.hidden = false);
      main.replaceChildren(...itsMain.childNodes);
      shown = its;
    }
    if (!itsMain) return;
    document.getElementById("as-of").replaceWith(page.getElementById("as-of"));
    if (!itsMain.dataset.behind) delete main.dataset.behind;
  };
  let wake = () => {};
  document.addEventListener("visibilitychange", () => wake()); // who comes back is not to wait
  const goOn = async () => {
    for (let times = 1; fresh.hidden; times++) {
      const seconds = main.dataset.behind ? Math.min(1 + times, 30) : 30;
      await new Promise((resolve) => {
        setTimeout(resolve, 1000 * seconds);
        wake = resolve;
      });
      await look().catch(() => {}); // the server is away for a moment: look again
    }
  };
  goOn();
}

// A page that waits for a run: its part is asked for again until it says that there is nothing more to wait for.
async function waitFor(part) {
  while (part.dataset.again) {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    try {
      const answer = await fetch(part.dataset.again, { headers: { "X-Part": "1" } });
      if (answer.redirected || !answer.ok) return location.reload();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      part.replaceChildren(...fresh.childNodes);
      if (fresh.dataset.again) continue;
      delete part.dataset.again;
      if (fresh.dataset.then) return location.assign(fresh.dataset.then);
      const result = part.querySelector("[data-result]") ?? part.querySelector(".notice");
      if (!result || ![document.body, null].includes(document.activeElement)) continue; // somebody is elsewhere by now
      result.tabIndex = -1;
      result.focus();
    } catch {
      // The server is away for a moment: ask again.
    }
  }
}
document.querySelectorAll("[data-again]").forEach(waitFor);

// Edits of failed lines outlive paging, a reload and an ended login: this tab keeps them, by person and file, until they
// are sent. Lines that were sent and are still open get back what was written; they are not sent unseen.
const SENT = "landfall sent";
function stored(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key)) || {};
  } catch {
    return {};
  }
}
function store(key, edits) {
  try {
    if (Object.keys(edits).length) sessionStorage.setItem(key, JSON.stringify(edits));
    else sessionStorage.removeItem(key);
    return true;
  } catch {
    return false; // too much, or not allowed
  }
}
function keepEdits(form) {
  const key = `landfall edits ${form.dataset.edits}`;
  const edits = stored(key);
  const boxes = new Map([...form.querySelectorAll("textarea[name^='line:']")].map((box) => [box.name.slice(5), box]));
  const was = (name) => form.elements[`was:${name}`].value;
  let [here, safe] = [0, true];
  for (const [name, box] of boxes) {
    if ("edited" in box.dataset) edits[name] = { was: was(name), text: box.value };
    else if (edits[name]?.was === was(name)) {
      box.value = edits[name].text;
      here += 1;
    } else delete edits[name];
    box.addEventListener("input", () => {
      edits[name] = { was: was(name), text: box.value };
      if (box.value === box.defaultValue && !("edited" in box.dataset)) delete edits[name];
      safe = store(key, edits);
    });
  }
  sessionStorage.removeItem(SENT);
  for (const one of form.querySelectorAll("input[name^='line:']")) {
    const name = one.name.slice(5);
    edits[name] = { was: was(name), text: one.value };
    form.elements[`was:${name}`].remove();
    one.remove();
  }
  safe = store(key, edits);
  const elsewhere = () => Object.entries(edits).filter(([name, edit]) => !boxes.has(name) && !edit.sent);
  const [bar, lines] = [document.getElementById("kept-edits"), (number) => `${number} line${number === 1 ? "" : "s"}`];
  const told = [here && `${lines(here)} on this page`, elsewhere().length && `${lines(elsewhere().length)} on other pages`];
  bar.hidden = !here && !elsewhere().length;
  bar.querySelector("span").textContent = `Your edits from before are back: ${told.filter(Boolean).join(", ")}. All of them are sent together.`;
  bar.querySelector("a").addEventListener("click", () => {
    store(key, {});
    safe = true;
  });
  form.addEventListener("submit", (event) => {
    const turns = ["turn", "show"].includes(event.submitter?.value) && safe; // what is kept need not come along
    for (const one of form.querySelectorAll("[name^='line:'], [name^='was:']")) one.disabled = turns;
    for (const [name, edit] of turns ? [] : elsewhere()) {
      for (const [kind, value] of [["line", edit.text], ["was", edit.was]]) {
        form.append(Object.assign(document.createElement("input"), { type: "hidden", className: "carried", name: `${kind}:${name}`, value }));
      }
    }
    if (event.submitter?.value === "send") sessionStorage.setItem(SENT, key);
    safe = true;
  });
  window.addEventListener("pageshow", () => {
    form.querySelectorAll(".carried").forEach((one) => one.remove());
    form.querySelectorAll(":disabled[name*=':']").forEach((one) => { one.disabled = false; });
  });
  window.addEventListener("beforeunload", (event) => {
    if (!safe) event.preventDefault(); // the browser asks
  });
}
document.querySelectorAll("form[data-edits]").forEach(keepEdits);
// Lines that are sent from another page may be among those that were edited one by one.
for (const form of document.querySelectorAll("form[data-sends]"))
  form.addEventListener("submit", () => sessionStorage.setItem(SENT, `landfall edits ${form.dataset.sends}`));
if (location.pathname.includes("/run/ingest_action/") && sessionStorage.getItem(SENT)) {
  const key = sessionStorage.getItem(SENT);
  store(key, Object.fromEntries(Object.entries(stored(key)).map(([name, edit]) => [name, { ...edit, sent: true }])));
  sessionStorage.removeItem(SENT);
}
