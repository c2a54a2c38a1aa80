// Sends a file with a progress bar, then the form that checks or loads it. The name of a file is text, never HTML.
"use strict";

const form = document.getElementById("upload");
const part = (id) => document.getElementById(id);
const buttons = form.querySelectorAll("button[name=action]");
let file = null; // what was chosen
let stored = null; // the server's answer about it
let sending = null; // the request on its way

function size(bytes) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000) return `${bytes.toFixed(unit === "B" || bytes >= 100 ? 0 : 1)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} TB`;
}

function say(kind, ...pieces) {
  const notice = document.createElement("p");
  notice.className = `notice ${kind}`;
  notice.append(...pieces);
  part("said").replaceChildren(...(pieces.length ? [notice] : []));
}

function enable(yes) {
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

// A table: its first lines have the same number of separators each, and none begins as JSON does.
function isTable(head) {
  const lines = head.replace(/^\xef\xbb\xbf/, "").split(/\r?\n/).filter((line) => line.trim()).slice(0, 3);
  if (lines.length < 2 || lines.some((line) => /^\s*[{[]/.test(line))) return false;
  return [",", ";", "\t"].some((mark) => {
    const found = lines.map((line) => line.replace(/"[^"]*"/g, "").split(mark).length);
    return found[0] > 1 && found.every((number) => number === found[0]);
  });
}

function kindOf(head) {
  if (PACKED.test(head)) return "";
  const known = KINDS.find(([pattern]) => pattern.test(head));
  return known ? known[1] : isTable(head) ? "a table (CSV): export it as JSON, one object a line" : "";
}

async function choose(chosen) {
  if (!chosen || sending) return;
  file = chosen;
  stored = null;
  say("");
  part("chosen").textContent = `${file.name}, ${size(file.size)}`;
  const most = Number(form.dataset.most);
  const wrong = file.size === 0 ? "The file is empty." : file.size > most ? `The file is larger than ${form.dataset.mostTold}.` : "";
  enable(false);
  const head = wrong ? "" : String.fromCharCode(...new Uint8Array(await file.slice(0, 4096).arrayBuffer()));
  if (file !== chosen) return; // another one was chosen meanwhile
  const kind = kindOf(head);
  if (wrong) say("bad", wrong);
  else if (kind) say("bad", `The file is ${kind}.`);
  enable(!wrong && !kind);
}

part("file").addEventListener("change", (event) => choose(event.target.files[0]));

// A file is stored for the source that was chosen: for another one it has to be sent again.
form.elements.source.addEventListener("change", () => {
  if (stored) say("");
  stored = null;
});

const drop = part("drop");
for (const name of ["dragenter", "dragover"])
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  choose(event.dataTransfer.files[0]);
});
// Beside the field the browser would leave this page and open the file.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

function finished() {
  sending = null;
  part("sending").hidden = part("cancel").hidden = true;
  part("file").disabled = form.elements.source.disabled = false;
  enable(true);
}

function send(then) {
  sending = new XMLHttpRequest();
  sending.open("PUT", `${form.dataset.store}?name=${encodeURIComponent(file.name.toWellFormed?.() ?? file.name)}&source=${form.elements.source.value}`);
  sending.setRequestHeader("Accept", "application/json");
  sending.setRequestHeader("Content-Type", "application/octet-stream");
  sending.upload.onprogress = (event) => {
    part("sending").querySelector("progress").value = event.loaded / (event.total || 1);
    part("sent").textContent = event.loaded < event.total ? `${size(event.loaded)} of ${size(event.total)}` : "Sent; it is being stored…";
  };
  sending.onload = () => {
    const answer = sending;
    let told = {};
    try {
      told = JSON.parse(answer.responseText);
    } catch {
      // not ours: a server in between
    }
    finished();
    if (answer.status !== 200) return say("bad", told.error || `The server answered ${answer.status}.`);
    stored = told;
    form.elements.key.value = told.key;
    then();
  };
  sending.onerror = () => {
    finished();
    say("bad", "The connection broke. Nothing was kept: try again.");
  };
  sending.onabort = () => {
    finished();
    say("look", "Cancelled. Nothing was kept.");
  };
  say("");
  enable(false);
  part("file").disabled = form.elements.source.disabled = true;
  part("sent").textContent = "Waits for its turn…";
  part("sending").hidden = part("cancel").hidden = false;
  part("cancel").focus();
  sending.send(file);
}

part("cancel").addEventListener("click", () => sending?.abort());

// Whether these bytes are loaded already is known once they are stored. Then a person decides.
function told(twin) {
  const link = document.createElement("a");
  link.href = form.dataset.files + encodeURIComponent(twin.file_id);
  link.textContent = twin.key;
  const same = twin.source === form.elements.source.value;
  const rest = same ? "; loading them again changes nothing." : `, by the rules of ${twin.source}; each fact counts once.`;
  say("look", "These bytes were loaded already as ", link, rest);
}

// Runs before the listener of landfall.js, which would take a form that waits for its file as sent.
form.addEventListener("submit", (event) => {
  const button = event.submitter?.name === "action" ? event.submitter : buttons[0];
  if (stored) return;
  event.preventDefault();
  event.stopPropagation();
  if (!file || sending) return;
  send(() => {
    if (stored.twin) {
      told(stored.twin);
      button.focus();
    } else form.requestSubmit(button);
  });
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) return location.reload(); // the key of a file that was handled
  choose(part("file").files[0]); // some browsers keep the choice
});
