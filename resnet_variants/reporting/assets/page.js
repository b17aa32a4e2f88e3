"use strict";
// The tables are there without this script. It sorts and filters them, and shows what Python made:
// figures, whose parts it picks by the chosen options, and the difference of two arms. The controls
// on the page hold all state: every change draws from them.

const byId = (id) => document.getElementById(id);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
let rows, groups, pairs, layout, bands, figures; // see `_data` in html.py
const group = () => Number(byId("group")?.value ?? 0);
let shown = new Set(); // the numbers of the arms that the filters let through

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

// --- filters ----------------------------------------------------------------------------------

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = all("select[data-column]").filter((select) => select.value !== "");
  const text = (arm) => Object.values(rows).map((values) => values[arm]).join(" ").toLowerCase();
  const fits = (arm) => words.every((word) => text(arm).includes(word)) &&
    wanted.every((select) => `=${rows[select.dataset.column][arm]}` === select.value);
  const own = [...groups.keys()].filter((arm) => groups[arm] === group());
  shown = new Set(own.filter(fits));
  for (const part of all("[data-group]")) part.hidden = Number(part.dataset.group) !== group();
  for (const row of all("[data-arm]")) row.hidden = groups[row.dataset.arm] === group() && !shown.has(Number(row.dataset.arm));
  byId("matches").value = `${shown.size} of ${own.length} arms`;
  drawAll();
}

function compare(pair) {
  const [arm, other] = all("select", pair);
  pair.querySelector("output").value = pairs[arm.value][other.value] ?? "the same arm";
}

// --- figures ----------------------------------------------------------------------------------

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

function draw(name) {
  const plot = byId(name), figure = figures[name][group()];
  if (!plot?.closest(".charts").clientWidth) return; // it is folded
  plot.parentElement.hidden = !figure;
  if (!figure) return;
  const options = Object.entries(figure.options).map(([id, values]) => values[byId(id).value]);
  const traces = tracesOf(figure, [figure, ...options]).filter(({ name, meta }) =>
    meta === undefined || (shown.has(meta) && (name !== "band" || shown.size <= bands)));
  const own = {
    dragmode: plot.clientWidth < 500 ? false : "zoom", // a finger scrolls the page
    uirevision: Object.keys(figure.options).filter((id) => id !== "colour").map((id) => byId(id).value).join() + group(), // keeps the zoom
  };
  Plotly.react(plot, traces, structuredClone(Object.assign(own, layout, figure.layout, ...options.map((option) => option.layout))), CONFIG);
}

function drawAll() {
  Object.keys(figures).forEach(draw);
  const axis = byId("colour")?.value, values = new Set([...shown].map((arm) => rows[axis]?.[arm]));
  for (const entry of all(".legend li")) entry.hidden = entry.dataset.axis !== axis || !values.has(entry.dataset.value);
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

async function start() {
  document.body.ariaBusy = "true";
  ({ rows, groups, pairs, layout, bands, figures } = await unpacked(byId("data").textContent));
  for (const part of all(".controls")) part.hidden = false;
  all("table").forEach(makeSortable);
  for (const pair of all(".pair")) {
    pair.addEventListener("change", () => compare(pair));
    compare(pair);
  }
  for (const control of all("#group, #filter, select[data-column]")) control.addEventListener("input", filter);
  for (const control of all("#cost-x, #curves-y, #colour")) control.addEventListener("change", drawAll);
  for (const plot of all(".plot")) plot.replaceChildren();
  byId("charts").closest("details").addEventListener("toggle", drawAll);
  matchMedia("print").addEventListener("change", drawAll); // the paper's width, and all folds open
  const fits = new ResizeObserver((boxes) => boxes.forEach(({ target }) => {
    target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth;
  }));
  all(".scroll").forEach((box) => fits.observe(box));
  if (byId("filter")) filter();
  document.body.ariaBusy = "false";
}

start();
