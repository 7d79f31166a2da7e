"use strict";
// Draws the figures of the page, fills their tables, and makes the filters act on both.
// Text of a run reaches the page as text nodes and attributes only, never as HTML.

const page = JSON.parse(document.getElementById("page-data").textContent);
const tables = {};
for (const [name, table] of Object.entries(page.tables)) tables[name] = unpacked(table);
const filters = [...document.querySelectorAll("#filters select")];
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const PAPER_WIDTH = 640; // pixels of a figure on paper
const NARROW = 480; // pixels of a figure under which its labels are cut shorter
const MARGIN = 36; // pixels next to a figure's labels and its axis
const SMALLEST = 0.65; // as far a figure of fixed size shrinks before it scrolls
const TABLE_ROWS = 200;
const SHARED = ["attribute", "measure", "intervention", "patch_kind", "noise_sigmas"]; // filters of all parts
const ruler = document.createElement("canvas").getContext("2d");

// The width of the longest label of a figure's rows, so that all choices have the same axis.
function labelWidth(spec, rows) {
  const encodings = [spec, ...(spec.layer || [])].map((layer) => layer.encoding && layer.encoding.y);
  const y = encodings.find((encoding) => encoding && encoding.type === "nominal");
  if (!y) return 0;
  ruler.font = "12px " + page.themes.light.font;
  return Math.ceil(Math.max(...rows.map((row) => ruler.measureText(row[y.field]).width)));
}

function unpacked(table) {
  const rows = Array.from({ length: table.length }, () => ({}));
  for (const [name, column] of Object.entries(table.columns)) {
    const at = column.texts ? (i) => column.texts[column.codes[i]] : (i) => column.values[i];
    rows.forEach((row, i) => { row[name] = at(i); });
  }
  return rows;
}

function chosen() {
  return Object.fromEntries(filters.map((select) => [select.name, select.value]));
}

const initial = chosen(); // what is chosen where the address says nothing

// The section that the address names: as its whole hash, or after the filters.
function sectionOf(wanted) {
  const hash = location.hash.slice(1);
  return document.getElementById(hash) ? hash : wanted.get("at");
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (sectionOf(wanted) === location.hash.slice(1)) return; // a link to a section, no choice
  for (const select of filters) {
    const value = wanted.get(select.name) ?? initial[select.name];
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  }
}

function writeAddress(choice) {
  const section = sectionOf(new URLSearchParams(location.hash.slice(1)));
  const own = new URLSearchParams(
    Object.entries(choice).filter(([name, value]) => value !== initial[name]));
  let hash = own.toString();
  if (section) hash = hash ? `${hash}&at=${encodeURIComponent(section)}` : section;
  history.replaceState(null, "", location.href.split("#")[0] + (hash ? "#" + hash : ""));
}

function say(text) {
  document.getElementById("said").textContent = text;
}

function button(title, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = title;
  made.addEventListener("click", act);
  return made;
}

function csvOf(lines) {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

// A button that copies lines of cells, which are made when it is pressed.
function copyButton(lines) {
  const made = button("Copy as CSV", async () => {
    try {
      await navigator.clipboard.writeText(csvOf(lines()));
      made.textContent = "Copied";
    } catch {
      made.textContent = "The browser does not allow copying";
    }
    say(made.textContent);
    setTimeout(() => { made.textContent = "Copy as CSV"; }, 2000);
  });
  return made;
}

function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function rowsOf(figure, choice) {
  return tables[figure.source].filter((row) =>
    (figure.where === null || row[figure.where] !== null) &&
    figure.chosenBy.every((field) => row[field] === (field === "part" ? figure.part : choice[field])));
}

// The end of the scale of effects: one for all figures of a choice, so that colors compare. Only
// one caption's effects, which are larger than means over captions, have a scale of their own.
function boundOf(figure, choice) {
  let bound = 0;
  for (const name of figure.source === "words" ? ["words"] : ["states", "tokens"])
    for (const row of tables[name])
      if (SHARED.every((field) => row[field] === choice[field]))
        bound = Math.max(bound, Math.abs(row.mean));
  return bound || 1;
}

function findingOf(figure, choice) {
  const key = figure.chosenBy.map((field) => (field === "part" ? figure.part : choice[field])).join("|");
  return page.findings[figure.name][key] || figure.title;
}

function signed(value, digits) {
  const text = value.toFixed(digits).replace("-", "\u2212");
  return value > 0 ? "+" + text : text;
}

const EMPTY = { recovery: page.undefinedShare };
const FORMATS = {
  text: String,
  number: (value) => value.toLocaleString("en"),
  effect: (value) => signed(value, 4),
  q: (value) => (value < 0.0001 ? "< 0.0001" : value.toFixed(4)),
  recovery: (value) => (100 * value).toFixed(0).replace("-", "\u2212") + " %",
  ratio: (value) => value.toFixed(2),
};

function filled(table, columns, rows) {
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  for (const [, heading, format] of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = heading;
    if (format !== "text") cell.className = "n";
    head.append(cell);
  }
  for (const row of rows) {
    const line = body.insertRow();
    for (const [field, , format] of columns) {
      const cell = line.insertCell();
      cell.textContent = row[field] === null || row[field] === undefined
        ? EMPTY[format] || "" : FORMATS[format](row[field]);
      if (format !== "text") cell.className = "n";
    }
  }
}

function ordered(figure, rows) {
  const by = { timesteps: ["order", "window"], tokens: ["order", "place_order"], controls: ["controlled"], depth: ["depth"], sets: ["size"],
    words: ["order", "place_order"] };
  const keys = by[figure.name];
  if (!keys) return rows.slice().sort((a, b) => b.mean - a.mean);
  return rows.slice().sort((a, b) => keys.map((key) => a[key] - b[key]).find((d) => d) || 0);
}

class Drawn {
  constructor(figure) {
    this.figure = figure;
    this.root = document.getElementById("figure-" + figure.id);
    this.plot = this.root.querySelector(".plot");
    this.paper = this.root.querySelector(".paper");
    this.views = [];
    const tools = this.root.querySelector(".tools");
    if (figure.columns) tools.append(copyButton(() => this.lines(chosen())));
    tools.append(button("Save SVG", async () => {
      const onPaper = this.views[this.views.length - 1].view;
      save(`${figure.id}.svg`, await onPaper.toSVG(), "image/svg+xml");
    }));
  }

  // All rows of the figure with the digits that the page has, under the names of its fields.
  lines(choice) {
    const fields = this.figure.columns.map(([field]) => field);
    const rows = ordered(this.figure, rowsOf(this.figure, choice));
    return [fields, ...rows.map((row) => fields.map((field) => row[field]))];
  }

  async draw(choice) {
    this.views.forEach((result) => result.finalize());
    this.views = [];
    await this.embed(this.plot, choice, dark.matches ? "dark" : "light", this.plot.clientWidth);
    // Paper is light and has a width of its own, whatever the screen shows.
    await this.embed(this.paper, choice, "light", PAPER_WIDTH);
  }

  async embed(place, choice, theme, room) {
    const spec = structuredClone(this.figure.spec);
    if (this.figure.source) {
      spec.datasets.rows = rowsOf(this.figure, choice);
      spec.description = findingOf(this.figure, choice); // Vega makes it the figure's label
    }
    for (const parameter of spec.params || [])
      if (parameter.name === "bound") parameter.value = boundOf(this.figure, choice);
    const config = structuredClone(page.themes[theme]);
    const limit = room < NARROW ? 118 : 250;
    const labels = Math.min(limit, labelWidth(spec, tables[this.figure.source] || spec.datasets.rows));
    config.axisY = { labelLimit: limit };
    if (labels) Object.assign(config.axisY, { minExtent: labels, maxExtent: labels });
    if (room < NARROW) config.legend.columns = 2;
    if (spec.width === "container") {
      spec.width = Math.max(140, room - (labels || 50) - MARGIN);
    } else if (spec.width > room - MARGIN) {
      const scale = Math.max(SMALLEST, (room - MARGIN) / spec.width);
      spec.width *= scale;
      spec.height *= scale;
    }
    this.views.push(await vegaEmbed(place, spec, {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, config, tooltip: { theme },
    }));
  }

  async update(choice) {
    const hidden = Boolean(choice.part && this.figure.part && choice.part !== this.figure.part);
    this.root.hidden = hidden;
    if (hidden) return 0;
    const rows = this.figure.source ? rowsOf(this.figure, choice) : null;
    this.root.querySelector(".empty").hidden = !rows || rows.length > 0;
    this.root.querySelector(".body").hidden = Boolean(rows) && rows.length === 0;
    if (rows && rows.length === 0) return 0;
    await this.show(rows, choice);
    if (rows) this.words(rows, choice);
    return rows ? rows.length : 0;
  }

  async show(rows, choice) {
    if (!this.views.length) return this.draw(choice);
    if (!rows) return undefined;
    return Promise.all(this.views.map(({ view }) => this.fill(view, rows, choice)));
  }

  fill(view, rows, choice) {
    if ((this.figure.spec.params || []).some((one) => one.name === "bound"))
      view.signal("bound", boundOf(this.figure, choice));
    return view.data("rows", structuredClone(rows)).resize().runAsync();
  }

  // Adds for paper the same figure of the other attributes, in their order. Nothing here waits for
  // more than a promise that is kept already, so that all is drawn before the browser lays out paper.
  async addPrinted(choice, attributes) {
    if (this.root.hidden || !this.views.length || !this.figure.chosenBy?.includes("attribute")) return;
    const { view } = this.views[this.views.length - 1];
    let last = null; // the copy after which the next one goes; before the chosen attribute none
    for (const attribute of attributes) {
      if (attribute === choice.attribute) { last = this.root; continue; }
      const other = { ...choice, attribute };
      const rows = rowsOf(this.figure, other);
      if (!rows.length) continue;
      await this.fill(view, rows, other);
      const copy = this.copy(findingOf(this.figure, other));
      if (last) { last.after(copy); last = copy; } else this.root.before(copy);
    }
    const own = rowsOf(this.figure, choice);
    if (own.length) await this.fill(view, own, choice);
  }

  // What paper shows of the figure now, under words of its own.
  copy(words) {
    const copied = document.createElement("figure");
    copied.className = "figure printed";
    const heading = this.root.querySelector("h3");
    if (heading) copied.append(heading.cloneNode(true));
    const paper = this.paper.cloneNode(true);
    const suffix = `-${this.figure.id}-${document.querySelectorAll(".printed").length}`;
    for (const element of paper.querySelectorAll("*")) // ids, and what refers to one as url(#id)
      for (const { name, value } of [...element.attributes])
        if (name === "id") element.id += suffix;
        else if (value.startsWith("url(#")) element.setAttribute(name, value.replace(")", `${suffix})`));
    const caption = document.createElement("figcaption");
    caption.textContent = words;
    copied.append(paper, caption);
    return copied;
  }

  words(rows, choice) {
    const finding = findingOf(this.figure, choice);
    this.plot.setAttribute("aria-label", finding);
    this.root.querySelector("figcaption").textContent = finding;
    const details = this.root.querySelector("details.values");
    const shown = ordered(this.figure, rows).slice(0, TABLE_ROWS);
    details.querySelector(".count").textContent =
      shown.length < rows.length ? `(the first ${shown.length} of ${rows.length})` : `(${rows.length})`;
    const old = details.querySelector("table");
    const table = document.createElement("table");
    filled(table, this.figure.columns, shown);
    old.replaceWith(table);
  }
}

const drawn = page.figures.map((figure) => new Drawn(figure));

function showStrips(choice) {
  const strips = [...document.querySelectorAll(".strip")];
  for (const strip of strips)
    strip.hidden = choice.attribute !== null && strip.dataset.attribute !== choice.attribute ||
      Boolean(choice.part) && strip.dataset.part !== choice.part;
  const none = document.getElementById("no-strips");
  if (none) none.hidden = strips.some((strip) => !strip.hidden);
}

// The filters in words, for paper, which shows every attribute.
function choiceText(attribute) {
  const text = (select) => (select.name === "attribute" && attribute) || select.selectedOptions[0].text;
  return filters
    .filter((select) => !select.parentElement.hidden)
    .map((select) => `${select.labels[0].firstChild.textContent.trim()}: ${text(select)}`)
    .join("; ");
}

async function preparePaper() {
  for (const closed of document.querySelectorAll("details:not(.values, [open])")) {
    closed.open = true;
    closed.dataset.opened = "";
  }
  if (!filters.length || !document.documentElement.dataset.ready) return;
  const choice = chosen();
  const attributes = [...filters.find((select) => select.name === "attribute").options].map((o) => o.value);
  document.getElementById("choice").textContent = choiceText(attributes.join(", "));
  showStrips({ ...choice, attribute: null });
  for (const one of drawn) await one.addPrinted(choice, attributes);
}

function clearPaper() {
  for (const copy of document.querySelectorAll(".printed")) copy.remove();
  for (const details of document.querySelectorAll("details[data-opened]")) {
    details.open = false;
    delete details.dataset.opened;
  }
  if (filters.length) showStrips(chosen());
}

// Hides the sections, and the links to them, whose figures are all of a part that is not chosen.
function showSections() {
  for (const section of document.querySelectorAll("section:has(> .figures)")) {
    section.hidden = !section.querySelector(".figure:not([hidden])");
    document.querySelector(`nav a[href="#${section.id}"]`).hidden = section.hidden;
  }
}

function showStatus(choice) {
  const status = document.getElementById("shown");
  if (!status) return;
  const rows = tables.states.filter((row) =>
    SHARED.every((field) => row[field] === choice[field]) &&
    (!choice.part || row.part === choice.part));
  const survivors = rows.filter((row) => row.survives === "yes").length;
  status.textContent = `${rows.length} states, ${survivors} survive.`;
  document.getElementById("choice").textContent = choiceText();
}

let shown = ""; // the choice that figures, strips and status show

async function update() {
  const choice = chosen();
  const wanted = JSON.stringify(choice);
  writeAddress(choice);
  if (wanted !== shown) {
    if (filters.length) showStrips(choice);
    showStatus(choice);
    for (const one of drawn) await one.update(choice);
    showSections();
    shown = wanted;
  }
  document.documentElement.dataset.ready = wanted;
}

let queue = Promise.resolve();
function soon(task) {
  delete document.documentElement.dataset.ready;
  queue = queue.then(task);
}

for (const select of filters) select.addEventListener("change", () => soon(update));
for (const card of document.querySelectorAll("button.choose"))
  card.addEventListener("click", () => {
    document.querySelector("#filters select[name=attribute]").value = card.dataset.attribute;
    soon(update);
    document.getElementById("network").scrollIntoView();
  });
for (const table of document.querySelectorAll(".scroll > table")) {
  if (table.closest(".values")) continue; // the figure has a button
  const cells = (row) => [...row.cells].map((cell) => cell.innerText);
  table.parentElement.after(copyButton(() => [...table.rows].map(cells)));
}
window.addEventListener("hashchange", () => { readAddress(); soon(update); });
dark.addEventListener("change", () => soon(redraw));
window.addEventListener("beforeprint", preparePaper);
window.addEventListener("afterprint", clearPaper);
let width = window.innerWidth;
let timer = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return; // a phone's bars come and go
  width = window.innerWidth;
  clearTimeout(timer);
  timer = setTimeout(() => soon(redraw), 200);
});

async function redraw() {
  for (const one of drawn) if (one.views.length) await one.draw(chosen());
  await update();
}
readAddress();
soon(update);
queue.then(() => {
  const section = document.getElementById(sectionOf(new URLSearchParams(location.hash.slice(1))));
  if (section) section.scrollIntoView();
});
