// What HTML cannot do: Airflow's theme, links out of Airflow's frame, and looking again while a run goes on.
"use strict";

function parentDocument() {
  try {
    return window.parent !== window ? window.parent.document : null;
  } catch {
    return null; // framed by another site: nothing of it is ours to see
  }
}

const outside = parentDocument();

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

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  if (event.target.method === "post") event.target.dataset.sent = "1";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

// Ages go on. The words are those of ingest/ui/shown.py.
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
setInterval(() => {
  for (const one of document.querySelectorAll("time[datetime]")) {
    const words = age((Date.now() - Date.parse(one.dateTime)) / 1000);
    if (one.textContent !== words) one.textContent = words;
  }
}, 10_000);

// What came in since is not put under somebody's eyes: a button says that it is there.
const fresh = document.getElementById("fresh");
function told(page) {
  const main = page.querySelector("main").cloneNode(true);
  main.querySelectorAll("time").forEach((one) => one.remove());
  return main.textContent;
}
if (fresh && document.querySelector("main[data-fresh]")) {
  const first = told(document);
  fresh.addEventListener("click", () => location.reload());
  const asking = setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href);
      if (!answer.ok || answer.redirected) return;
      if (told(new DOMParser().parseFromString(await answer.text(), "text/html")) === first) return;
      clearInterval(asking);
      fresh.hidden = false;
    } catch {
      // The server is away for a moment: ask again.
    }
  }, Number(document.querySelector("main").dataset.fresh) * 1000);
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
      if (fresh.dataset.then) location.assign(fresh.dataset.then);
    } catch {
      // The server is away for a moment: ask again.
    }
  }
}
document.querySelectorAll("[data-again]").forEach(waitFor);
