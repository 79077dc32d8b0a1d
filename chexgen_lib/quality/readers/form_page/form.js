"use strict";
// The form of one reader. `study` holds blocks of items; an item has an opaque id, one or two films and maybe a text.
// Nothing in the page says what an item is: the organiser's key does.

const study = JSON.parse(document.getElementById("study").textContent);
const FORMAT = "chexgen reader answers 1";
const PLACE = `reader-study:${study.study}:${study.reader}`;
const KEYS = "123456789abcdefgh"; // of the answers, in their order
const items = study.blocks.flatMap((block) => block.items);
const $ = (id) => document.getElementById(id);

let state = { block: 0, item: 0, begun: false, answers: {}, seconds: {} };
let films = [];
let ticking = null; // when the film on the screen was shown or last counted

// Keeping

function keep() {
  try {
    localStorage.setItem(PLACE, JSON.stringify(state));
    $("saved").textContent = `Saved ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
  } catch (error) {
    warn("This browser keeps nothing for this page. Export the answers before you close it.");
  }
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(PLACE));
    if (kept && kept.answers) state = kept;
  } catch (error) {
    warn("This browser keeps nothing for this page. Export the answers before you close it.");
  }
}

function warn(text) {
  $("warning").textContent = text;
  $("warning").hidden = !text;
}

// What a browser cannot do ends an action in silence, and a film that it cannot decode stays black.
function failed(reason) {
  warn(`Something failed in this browser (${reason}). Export the answers, and go on in a current browser.`);
}
window.addEventListener("error", (event) => failed(event.message));
window.addEventListener("unhandledrejection", (event) => failed(event.reason));

// Time on the film, in whole seconds; the time in which the page is hidden does not count.
function count() {
  const now = performance.now();
  if (ticking !== null && !$("reading").hidden) {
    const { id } = current();
    state.seconds[id] = Math.round(((state.seconds[id] || 0) + (now - ticking) / 1000) * 10) / 10;
  }
  ticking = document.hidden ? null : now;
}

// What is shown

const block = () => study.blocks[state.block];
const current = () => block().items[state.item];
const open = (of) => of.items.filter((item) => state.answers[item.id] === undefined);

function render() {
  const finished = state.block >= study.blocks.length;
  const reading = !finished && state.begun && state.item < block().items.length;
  $("reading").hidden = !reading;
  $("between").hidden = reading;
  progress(finished);
  if (reading) return showItem();
  for (const film of films) film.remove();
  films = [];
  if (finished) return between("All done", END, "Export answers", exportAnswers);
  if (!state.begun) return between(block().title, block().text, "Begin this part", begin);
  const left = open(block());
  const title = `End of part ${state.block + 1}`;
  if (left.length) {
    const text = `${left.length} of ${block().items.length} films of this part have no answer yet.`;
    return between(title, text, "Go to the first of them", () => go(block().items.indexOf(left[0])), true);
  }
  return between(title, "When you finish this part, its answers can no longer be changed.", "Finish this part", finish, true);
}

const END = `Export the answers and send the file to the organiser of the study. Thank you.

The file holds the numbers of the films and your answers; it holds no film.`;

function progress(finished) {
  const answered = items.filter((item) => state.answers[item.id] !== undefined).length;
  $("progress").max = items.length;
  $("progress").value = answered;
  $("count").textContent = `${answered} of ${items.length} answered`;
  const at = Math.min(state.item + 1, finished ? 0 : block().items.length);
  const film = state.begun && !finished ? `, film ${at} of ${block().items.length}` : "";
  $("place").textContent = finished
    ? `${study.reader}: finished`
    : `${study.reader}: part ${state.block + 1} of ${study.blocks.length}${film}`;
}

function between(title, text, label, action, canReturn = false) {
  $("between-title").textContent = title;
  $("between-text").textContent = text;
  $("between-go").textContent = label;
  $("between-go").onclick = action;
  $("between-back").hidden = !canReturn;
  $("between-title").focus();
}

function showItem() {
  const { images, text } = current();
  for (const film of films) film.remove();
  const names = block().films;
  fill($("films"), images.map((_, k) => figure(names[k], images.length)));
  films = [...$("films").querySelectorAll("canvas")].map((canvas) => new Film(canvas, display));
  films.forEach((film, k) => film.show(`data:image/png;base64,${study.images[images[k]]}`));
  $("invert").setAttribute("aria-pressed", "false");
  $("report").hidden = !text;
  $("report-text").textContent = text || "";
  $("asked").textContent = block().question;
  $("options").className = block().many ? "many" : "";
  fill($("options"), block().options.map(option));
  $("back").disabled = state.item === 0;
  next();
  ticking = performance.now();
  $("asked").focus({ preventScroll: true });
}

// `replaceChildren`, which browsers have since 2020.
function fill(parent, children) {
  parent.textContent = "";
  parent.append(...children);
}

function figure(name, of) {
  const holder = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${name}. Drag for window and level, plus and minus to zoom.`);
  holder.append(canvas);
  if (of > 1) holder.append(Object.assign(document.createElement("figcaption"), { textContent: name }));
  return holder;
}

function option({ value, label }, k) {
  const row = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: block().many ? "checkbox" : "radio", name: "answer", value });
  input.checked = (state.answers[current().id] || "").split(";").includes(value);
  input.addEventListener("change", () => choose(input));
  const words = Object.assign(document.createElement("span"), { textContent: label });
  const key = Object.assign(document.createElement("kbd"), { textContent: KEYS[k] });
  key.setAttribute("aria-hidden", "true");
  input.setAttribute("aria-keyshortcuts", KEYS[k]);
  row.append(input, words, key);
  return row;
}

function display(film) {
  const parts = [`window ${Math.round(film.width)}`, `level ${Math.round(film.level)}`, `zoom ${film.scale.toFixed(1)}`];
  $("display").textContent = parts.join(", ");
}

const next = () => ($("next").textContent = state.answers[current().id] === undefined ? "Skip for now" : "Next");

// What a reader does

function choose(input) {
  const all = [...$("options").querySelectorAll("input")];
  if (block().many && input.checked) {
    // The first option says that there is none of the others.
    for (const other of all) if ((other === all[0]) !== (input === all[0])) other.checked = false;
  }
  const chosen = all.filter((one) => one.checked).map((one) => one.value);
  if (chosen.length) state.answers[current().id] = chosen.join(";");
  else delete state.answers[current().id];
  count();
  keep();
  progress(false);
  next();
}

function go(item) {
  count();
  state.item = item;
  keep();
  render();
}

function begin() {
  state.begun = true;
  go(0);
}

function finish() {
  state.block += 1;
  state.begun = false;
  state.item = 0;
  keep();
  render();
}

function each(action) {
  films.forEach(action);
  $("invert").setAttribute("aria-pressed", String(films.some((film) => film.inverted)));
}

const TOOLS = {
  "+": () => each((film) => film.zoom(1.25)),
  "=": () => each((film) => film.zoom(1.25)),
  "-": () => each((film) => film.zoom(0.8)),
  i: () => each((film) => film.invert()),
  r: () => each((film) => film.reset()),
  "[": () => each((film) => film.window(-16, 0)),
  "]": () => each((film) => film.window(16, 0)),
  ",": () => each((film) => film.window(0, -8)),
  ".": () => each((film) => film.window(0, 8)),
};

// Browsers from before 2022 know no dialogs: there the help lies on the page.
function help(shown) {
  const dialog = $("help");
  if (dialog.hasAttribute("open") === shown) return;
  if (!dialog.showModal) dialog.toggleAttribute("open", shown);
  else if (shown) dialog.showModal();
  else dialog.close();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("help").hasAttribute("open")) return event.key === "Escape" && help(false);
  if (event.key === "?") return help(true);
  if ($("reading").hidden) return;
  const key = event.key.toLowerCase();
  const input = $("options").querySelectorAll("input")[KEYS.indexOf(key)];
  if (event.repeat && (key === "enter" || key === "backspace")) return event.preventDefault(); // a key held down
  if (key === "enter" && event.target.tagName !== "BUTTON") go(state.item + 1);
  else if (key === "backspace" && state.item) go(state.item - 1);
  else if (TOOLS[key]) TOOLS[key]();
  else if (key.length === 1 && input) input.click();
  else return;
  event.preventDefault();
}

// Files

// CRC-32 (as zlib's) of a text: it shows that a row was changed after its export, by accident or by hand.
function crc32(text) {
  let crc = ~0;
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (~crc >>> 0).toString(16).padStart(8, "0");
}

function row(item) {
  const answer = state.answers[item.id];
  const seconds = Math.round(state.seconds[item.id] || 0);
  const check = crc32([study.study, study.reader, item.id, answer, seconds].join("|"));
  return { item: item.id, answer, seconds, check };
}

function exportAnswers() {
  count();
  const answers = items.filter((item) => state.answers[item.id] !== undefined).map(row);
  const about = { format: FORMAT, study: study.study, reader: study.reader, items: items.length };
  const text = JSON.stringify({ ...about, exported: new Date().toISOString(), answers }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `answers-${study.study}-${study.reader}.json`;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  const left = items.length - answers.length;
  $("saved").textContent = left ? `Exported; ${left} open` : "Exported";
}

// Answers that this browser has stay: a reader who goes on at two computers loses those of neither.
async function load(file) {
  const loaded = JSON.parse(await file.text());
  if (loaded.format !== FORMAT || loaded.study !== study.study || loaded.reader !== study.reader) {
    throw new Error("it holds answers of another study or reader");
  }
  const known = new Map(items.map((item) => [item.id, item]));
  const merged = { block: 0, item: 0, begun: false, answers: {}, seconds: {} };
  for (const { item, answer, seconds, check } of loaded.answers) {
    const right = crc32([study.study, study.reader, item, answer, seconds].join("|")) === check;
    if (!known.has(item) || !right) throw new Error(`its item ${item} was changed after the export`);
    merged.answers[item] = answer;
    merged.seconds[item] = seconds;
  }
  count();
  const twice = Object.keys(state.answers).filter((id) => id in merged.answers && merged.answers[id] !== state.answers[id]);
  Object.assign(merged.answers, state.answers);
  Object.assign(merged.seconds, state.seconds);
  state = merged;
  while (state.block < study.blocks.length && !open(block()).length) state.block += 1;
  keep();
  render();
  return twice.length ? `${twice.length} films have another answer in ${file.name}: those given here stay.` : "";
}

$("load").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  help(false);
  try {
    warn(await load(file));
  } catch (error) {
    warn(`${file.name} was not loaded: ${error.message}.`);
  }
});
$("question").addEventListener("submit", (event) => {
  event.preventDefault();
  go(state.item + 1);
});
$("back").addEventListener("click", () => go(state.item - 1));
$("between-back").addEventListener("click", () => go(block().items.length - 1));
$("export").addEventListener("click", exportAnswers);
$("open-help").addEventListener("click", () => help(true));
$("close-help").addEventListener("click", () => help(false));
for (const [id, key] of [["zoom-in", "+"], ["zoom-out", "-"], ["invert", "i"], ["reset", "r"]]) {
  $(id).addEventListener("click", TOOLS[key]);
}
document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => {
  count();
  keep();
});
window.addEventListener("pagehide", () => {
  count();
  keep();
});
window.addEventListener("storage", (event) => {
  if (event.key === PLACE) warn("This form is open in another window too. Close one of them, then reload the other.");
});

recall();
$("title").textContent = study.title;
document.title = study.title;
if (!readsTruly()) {
  warn("This browser adds noise to films, against tracking: allow canvas data for this page, or take another browser.");
}
render();
$("unable").remove();
