"use strict";
// The tables are there without this script. It sorts and filters them, and shows the figures that
// Python made: it picks the parts of the chosen options, and hides traces. The controls on the page
// and `alone` hold all state: every change draws from them.

let groups, rows, legends, layout, bands, figures;
const byId = (id) => document.getElementById(id);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const group = () => Number(byId("group")?.value ?? 0);
const alone = {}; // by figure: the value of the legend that is shown alone
const summaryRows = all("#summary ~ .group tr[data-row]");
const rowOf = new Map(summaryRows.map((row) => [Number(row.dataset.row), row]));

// --- tables -----------------------------------------------------------------------------------

function sortKey(row, column, numeric) {
  const text = row.cells[column].textContent.trim();
  if (text === "") return null;
  return numeric ? parseFloat(text.replace(/[<,]/g, "")) : text;
}

function inOrder(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

function sort(table, header) {
  const direction = header.ariaSort === "ascending" ? -1 : 1;
  const numeric = header.dataset.kind === "number";
  const keyed = [...table.tBodies[0].rows].map((row) => [sortKey(row, header.cellIndex, numeric), row]);
  const known = keyed.filter(([key]) => key !== null);
  const missing = keyed.filter(([key]) => key === null); // last in either direction
  known.sort(([a], [b]) => direction * inOrder(a, b));
  table.tBodies[0].append(...[...known, ...missing].map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.ariaSort = direction > 0 ? "ascending" : "descending";
}

function makeSortable(table) {
  for (const header of all("th[data-kind]", table.tHead)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sort(table, header));
    header.replaceChildren(button);
  }
}

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = all("select[data-column]").filter((select) => select.value !== "");
  for (const row of summaryRows) {
    const text = row.textContent.toLowerCase();
    const fits = (select) => `=${rows[select.dataset.column][row.dataset.row]}` === select.value;
    row.hidden = !(words.every((word) => text.includes(word)) && wanted.every(fits));
  }
  const own = summaryRows.filter((row) => !row.closest("[data-group]").hidden);
  byId("matches").value = `${own.filter((row) => !row.hidden).length} of ${own.length} variants`;
}

// --- figures ----------------------------------------------------------------------------------

// The mark of a legend entry: the symbol of a point, or a piece of a line.
function markOf({ colour, glyph, dash }, line) {
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.ariaHidden = "true";
  mark.style.color = colour;
  const dashes = dash === "solid" ? "none" : dash;
  if (line) mark.innerHTML = `<svg width="32" height="8"><path d="M0 4H32" stroke-dasharray="${dashes}"/></svg>`;
  else mark.textContent = glyph;
  return mark;
}

function drawLegend(id, entries) {
  const buttons = entries.map((entry, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaPressed = String(alone[id] === entry.value);
    button.append(markOf(entry, id === "curves"), entry.value || "(none)");
    button.addEventListener("click", () => {
      alone[id] = alone[id] === entry.value ? undefined : entry.value;
      draw(id);
      byId(`${id}-legend`).children[i].focus();
    });
    return button;
  });
  byId(`${id}-legend`).replaceChildren(...buttons);
}

// Only these buttons: Plotly has one that uploads the plot, which takes the address too.
const CONFIG = {
  displaylogo: false, displayModeBar: true, plotlyServerURL: "", responsive: true,
  modeBarButtons: [["zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
};

// The traces of a figure with the attributes that each of the sources has for them.
function tracesOf({ kinds, columns: { name } }, sources) {
  const traces = name.map((kind) => structuredClone(kinds[kind]));
  for (const [attribute, values] of sources.flatMap(({ columns }) => Object.entries(columns))) {
    const path = attribute.split("."), last = path.pop();
    values.forEach((value, i) => {
      if (value !== null) path.reduce((part, key) => (part[key] ??= {}), traces[i])[last] = value;
    });
  }
  return traces;
}

function draw(id) {
  const plot = byId(id);
  if (!plot) return;
  const figure = figures[id][group()];
  const chosen = all(`select[id^="${id}-"]`).map((select) => [select.id, select.value]);
  const options = figure ? chosen.map(([name, value]) => figure.options[name][value]) : [];
  const axis = byId(`${id}-colour`).value;
  const arms = figure?.columns.meta ?? [];
  const present = new Set(arms.map((row) => rows[axis][row]));
  if (!present.has(alone[id])) alone[id] = undefined;
  drawLegend(id, legends[axis].filter(({ value }) => present.has(value)));
  const note = [`${groups[group()]}.`, ...options.map((option) => option.note)].filter(Boolean).join(" ");
  if (byId(`${id}-note`).textContent !== note) byId(`${id}-note`).textContent = note; // read out once
  plot.hidden = !figure;
  if (!figure) return;
  const shown = new Set(arms.filter((row) => !rowOf.get(row).hidden && [undefined, rows[axis][row]].includes(alone[id])));
  const traces = tracesOf(figure, [figure, ...options]).filter(({ name, meta }) =>
    meta === undefined || (shown.has(meta) && (name !== "band" || shown.size <= bands)));
  const own = {
    dragmode: plot.clientWidth < 500 ? false : "zoom", // a finger scrolls the page
    uirevision: chosen.filter(([name]) => name !== `${id}-colour`).join() + group(), // keeps the zoom
  };
  Plotly.react(plot, traces, structuredClone(Object.assign(own, layout, figure.layout, ...options.map((option) => option.layout))), CONFIG);
  link(plot);
}

// A mark shows the row of its variant.
function link(plot) {
  const row = ({ points }) => rowOf.get(points[0].data.meta);
  const events = {
    plotly_hover: (event) => row(event).classList.add("marked"),
    plotly_unhover: (event) => row(event).classList.remove("marked"),
    plotly_click: (event) => row(event).scrollIntoView({ block: "center" }),
  };
  for (const [name, listener] of Object.entries(events)) {
    plot.removeAllListeners(name);
    plot.on(name, listener);
  }
}

const drawAll = () => Object.keys(figures).forEach(draw);

function filterAndDraw() {
  if (byId("filter")) filter();
  drawAll();
}

function showGroup() {
  for (const part of all("[data-group]")) part.hidden = Number(part.dataset.group) !== group();
  filterAndDraw();
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

async function start() {
  document.body.ariaBusy = "true";
  ({ groups, rows, legends, layout, bands, figures } = await unpacked(byId("data").textContent));
  for (const part of all(".controls")) part.hidden = false;
  all("table").forEach(makeSortable);
  byId("group")?.addEventListener("change", showGroup);
  for (const control of all("#filter, select[data-column]")) control.addEventListener("input", filterAndDraw);
  for (const id of Object.keys(figures)) {
    byId(id)?.replaceChildren();
    for (const select of all(`select[id^="${id}-"]`)) select.addEventListener("change", () => draw(id));
  }
  matchMedia("print").addEventListener("change", drawAll); // the paper's width
  showGroup();
  document.body.ariaBusy = "false";
}

start();
