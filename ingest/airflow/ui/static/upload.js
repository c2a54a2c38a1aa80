// Sends files with a progress bar each, then the form that checks or loads them. The name of a file is text, never HTML.
"use strict";

const form = document.getElementById("upload");
const part = (id) => document.getElementById(id);
const buttons = form.querySelectorAll("button[name=action]");
let chosen = []; // {file, line, wrong, stored}: `wrong` is why it is not sent, `stored` the server's answer about it
let sending = null; // the request on its way
let cancelled = false;

function size(bytes) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000) return `${bytes.toFixed(unit === "B" || bytes >= 100 ? 0 : 1)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} TB`;
}

function element(tag, values, ...pieces) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...pieces);
  return made;
}

// About all of them, above the list; about one, in its line.
function say(kind, ...pieces) {
  part("said").replaceChildren(...(pieces.length ? [element("p", { className: `notice ${kind}` }, ...pieces)] : []));
}

function state(one, kind, ...pieces) {
  one.line.lastElementChild.className = `state-of ${kind}`;
  one.line.lastElementChild.replaceChildren(...pieces);
}

const ready = () => chosen.filter((one) => !one.wrong);

function enable(yes = !sending && ready().length > 0) {
  for (const button of buttons) button.disabled = !yes;
}

// What surely holds no events, by its first bytes. The server knows more kinds, and refuses them as well.
const KINDS = [
  [/^PK\x03\x04[^]{26}(\[Content_Types\]|_rels\/|docProps\/|xl\/|word\/)/, "an Office document (Excel's .xlsx, .docx …): export it as JSON, one object a line"],
  [/^PK(\x03\x04|\x05\x06)/, "a ZIP archive: unpack it and send the .json files in it"],
  [/^\xd0\xcf\x11\xe0/, "an old Office document (.xls, .doc): export it as JSON, one object a line"],
  [/^%PDF-/, "a PDF document: send the file of events that was meant instead"],
  [/^(\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a)/, "an image: send the file of events that was meant instead"],
  [/^\s*<(!doctype|html|\?xml)/i, "a page of the web or XML: send the file of events that was meant instead"],
  [/^PAR1/, "a Parquet file: export it as JSON, one object a line"],
  [/^(BZh|\xfd7zXZ|7z\xbc\xaf|Rar!)/, "packed in a way that is not known here: unpack it, or pack it with gzip or zstd instead"],
  [/^(\xff\xfe|\xfe\xff|([\t-~]\0){2}|(\0[\t-~]){2})/, "text in UTF-16: save it as UTF-8"],
];
const PACKED = /^(\x1f\x8b|\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)/;
const HEAD_BYTES = 65536;

// Whether it is a table: "surely" as the server has it (`_is_table` in ingest/core/filetype.py), which refuses it, or
// "perhaps": then it is for the person to say.
function table(head) {
  const lines = head.replace(/^\xef\xbb\xbf/, "").split(/\r\n?|\n/).filter((line) => line.trim());
  if (head.length >= HEAD_BYTES) lines.pop();
  if (lines.length < 2 || lines.some((line) => /^\s*[{[]/.test(line))) return "";
  for (const mark of [",", ";", "\t"]) {
    const rows = lines.map((line) => line.replace(/"[^"]*"/g, (quoted) => quoted.slice(1, -1).replaceAll(mark, " ")).split(mark));
    const names = rows[0];
    if (names.length < 2 || rows.some((row) => row.length !== names.length)) continue;
    const named = names.every((name) => /^(?=.*[a-z_\x80-\xff])[\w.#/()%&$\x80-\xff-]+( [\w.#/()%&$\x80-\xff-]+)*$/i.test(name));
    const sure = named && rows.length > 2 && names.length > 2 && new Set(names).size === names.length && !lines.slice(1).includes(lines[0]);
    return sure ? "surely" : "perhaps";
  }
  return "";
}

// [kind of notice, words, whether it may be sent]
function judge(file, head) {
  if (head === null) return ["bad", "This cannot be read. A folder? Choose the files in it.", false];
  if (file.size === 0) return ["bad", "The file is empty.", false];
  if (file.size > Number(form.dataset.most)) return ["bad", `The file is larger than ${form.dataset.mostTold}.`, false];
  if (PACKED.test(head)) return ["", "Ready", true];
  const known = KINDS.find(([pattern]) => pattern.test(head));
  if (known) return ["bad", `The file is ${known[1]}.`, false];
  const found = table(head);
  if (found === "surely") return ["bad", "The file is a table (CSV): export it as JSON, one object a line.", false];
  if (found) return ["look", "It looks like a table (CSV). If it is one, export it as JSON, one object a line.", true];
  return ["", "Ready", true];
}

async function choose(files) {
  if (!files.length || sending) return;
  const most = Number(form.dataset.atOnce);
  const mine = files.slice(0, most).map((file) => ({
    file, wrong: "", stored: null,
    line: element("li", {}, ...[["name", file.name], ["small", size(file.size)], ["state-of", ""]].map(
      ([className, words]) => element("span", { className }, words))),
  }));
  chosen = mine;
  part("keys").replaceChildren();
  say("");
  if (files.length > most) say("look", `At most ${most} files are taken at once: the first ${most} are listed.`);
  part("files").replaceChildren(...mine.map((one) => one.line));
  enable(false);
  for (const one of mine) {
    const head = await one.file.slice(0, HEAD_BYTES).arrayBuffer().catch(() => null); // a folder, or a file that is gone
    if (chosen !== mine) return; // others were chosen meanwhile
    const [kind, words, good] = judge(one.file, head && Array.from(new Uint8Array(head), (byte) => String.fromCharCode(byte)).join(""));
    if (!good) one.wrong = words;
    state(one, kind, words);
  }
  enable();
}

part("file").addEventListener("change", (event) => choose([...event.target.files]));

// A file is stored for the source that was chosen: for another one it has to be sent again.
form.elements.source.addEventListener("change", () => {
  part("keys").replaceChildren();
  say("");
  for (const one of ready()) {
    if (one.stored) state(one, "", "Ready");
    one.stored = null;
  }
});

const drop = part("drop");
for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, () => drop.classList.add("over"));
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => choose([...event.dataTransfer.files]));
// Else the browser would leave this page and open the file, also where it is dropped beside the field.
for (const name of ["dragenter", "dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

// Resolves to whether the file is stored; its line says why not.
function send(one) {
  return new Promise((resolve) => {
    const request = (sending = new XMLHttpRequest());
    const source = form.elements.source.value;
    const name = one.file.name.toWellFormed?.() ?? one.file.name;
    request.open("PUT", `${form.dataset.store}?name=${encodeURIComponent(name)}&source=${source}`);
    request.responseType = "json";
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    const bar = element("progress", { max: 1, value: 0, ariaLabel: `${name}: sent` });
    const sent = element("span", {}, "Waits for its turn…");
    state(one, "", bar, sent);
    request.upload.onprogress = (event) => {
      bar.value = event.loaded / (event.total || 1);
      sent.textContent = event.loaded < event.total ? `${size(event.loaded)} of ${size(event.total)}` : "Sent; it is being stored…";
    };
    const over = (kind, ...pieces) => {
      state(one, kind, ...pieces);
      resolve(one.stored !== null);
    };
    request.onload = () => {
      const told = request.response; // null where it is not ours: a server in between
      if (request.status === 200) {
        one.stored = told ?? {};
        return told?.twin ? over("look", ...twin(told.twin)) : over("good", "Sent");
      }
      const words = told?.error || `The server answered ${request.status}.`;
      if (request.status === 400 || request.status === 413) one.wrong = words; // it stays so
      over("bad", words);
    };
    request.onerror = () => over("bad", "The connection broke. Nothing was kept: try again.");
    request.onabort = () => over("look", "Cancelled. Nothing was kept.");
    request.send(one.file);
  });
}

// Whether these bytes are loaded already is known once they are stored. Then a person decides.
function twin(found) {
  const link = element("a", { href: form.dataset.files + encodeURIComponent(found.file_id) }, found.key);
  const same = found.source === form.elements.source.value;
  return ["These bytes were loaded already as ", link, same ? "; loading them again changes nothing." : `, by the rules of ${found.source}; each fact counts once.`];
}

part("cancel").addEventListener("click", () => {
  cancelled = true;
  sending?.abort?.();
});

// What a person should know first stops it once: press again, and the rest goes on.
async function sendAll(button) {
  say("");
  cancelled = false;
  const waiting = ready().filter((one) => !one.stored);
  sending = {};
  enable();
  part("file").disabled = form.elements.source.disabled = true;
  part("cancel").hidden = false;
  part("cancel").focus();
  let well = ready().length === chosen.length; // else some were refused
  for (const one of waiting) {
    if (cancelled) state(one, "look", "Not sent.");
    else well = (await send(one)) && !one.stored.twin && well;
  }
  sending = null;
  part("cancel").hidden = true;
  part("file").disabled = form.elements.source.disabled = false;
  enable();
  const kept = ready().filter((one) => one.stored);
  if (well && !cancelled) {
    fill();
    return form.requestSubmit(button);
  }
  if (kept.length) say("look", chosen.length > 1 ? `${kept.length} of ${chosen.length} files are sent: look at the list, then press again to go on.` : "Press again to go on.");
  (button.disabled ? part("file") : button).focus();
}

// What the form says of the files that are stored.
function fill() {
  const key = (one) => element("input", { type: "hidden", name: "key", value: one.stored.key });
  part("keys").replaceChildren(...ready().map(key));
}

// Runs before the listener of landfall.js, which would take a form that waits for its files as sent.
form.addEventListener("submit", (event) => {
  if (part("keys").childElementCount) return;
  // A form that is asked to submit itself while it submits does nothing: where all is stored, this is the submission.
  if (!sending && ready().length && ready().every((one) => one.stored)) return fill();
  event.preventDefault();
  event.stopPropagation();
  if (sending || !ready().length) return;
  sendAll(event.submitter?.name === "action" ? event.submitter : buttons[0]);
});
window.addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault(); // the browser asks
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) return location.reload(); // the keys of files that were handled
  choose([...part("file").files]); // some browsers keep the choice
});
