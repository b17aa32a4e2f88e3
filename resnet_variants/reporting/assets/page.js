"use strict";
// The tables are there without this script; it sorts, filters and draws them. The controls on the
// page and `alone` below hold all state: every change draws anew from them.

const data = JSON.parse(document.getElementById("data").textContent);
const { rows, runs, curves, labels } = data;
const byId = (id) => document.getElementById(id);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const group = () => Number(byId("group")?.value ?? 0);
const alone = { cost: null, curves: null }; // the value of the legend that is shown alone

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
  let shown = 0, total = 0;
  for (const row of all(`[data-group="${group()}"] tr[data-row]`, byId("summary").parentElement)) {
    const text = row.textContent.toLowerCase();
    const fits = (select) => `=${rows[select.dataset.column][row.dataset.row]}` === select.value;
    row.hidden = !(words.every((word) => text.includes(word)) && wanted.every(fits));
    shown += !row.hidden;
    total += 1;
  }
  byId("matches").value = `${shown} of ${total} variants`;
}

// --- how a value looks ------------------------------------------------------------------------

const SYMBOLS = [
  ["circle", "●"], ["square", "■"], ["diamond", "◆"], ["triangle-up", "▲"], ["cross", "✚"],
  ["x", "✖"], ["triangle-down", "▼"], ["pentagon", "⬟"], ["hexagon", "⬢"], ["star", "★"],
];
const DASHES = ["none", "7px,3px", "2px,3px", "7px,3px,2px,3px", "12px,4px"];
const COLOURS = 7;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Over all groups, so that a value looks the same in each of them.
function looks(axis) {
  const values = [...new Set(rows[axis])];
  return new Map(values.map((value, i) => {
    const [symbol, glyph] = SYMBOLS[i % SYMBOLS.length];
    const name = `--colour-${i % COLOURS}`;
    return [value, { name, colour: css(name), symbol, glyph, dash: DASHES[i % DASHES.length] }];
  }));
}

// The mark of a legend entry: the symbol of a point, or a piece of a line.
function markOf(look, line) {
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.ariaHidden = "true";
  mark.style.color = `var(${look.name})`;
  if (line) mark.innerHTML = `<svg width="32" height="8"><path d="M0 4H32" stroke-dasharray="${look.dash}"/></svg>`;
  else mark.textContent = look.glyph;
  return mark;
}

function drawLegend(id, shown) {
  const entries = [...shown].map(([value, look], i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaPressed = String(alone[id] === value);
    button.append(markOf(look, id === "curves"), value || "(none)");
    button.addEventListener("click", () => {
      alone[id] = alone[id] === value ? null : value;
      draw(id);
      byId(`${id}-legend`).children[i].focus();
    });
    return button;
  });
  byId(`${id}-legend`).replaceChildren(...entries);
}

// Plotly reads some HTML in what it writes; long names are broken where a narrow screen ends.
function escaped(text) {
  const lines = String(text).match(/.{1,40}/gsu) ?? [];
  const marks = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  return lines.map((line) => line.replace(/[&<>]/g, (mark) => marks[mark])).join("<br>");
}

// --- accuracy and cost ------------------------------------------------------------------------

const number = (value, digits) => (value === null ? "" : value.toFixed(digits));
const bounds = (y) => (y === "delta" ? ["delta_ci_low", "delta_ci_high"] : ["test_acc_ci_low", "test_acc_ci_high"]);

// Every variant of the group that has both numbers; a baseline differs from itself by nothing.
function pointsOf(x, y) {
  const [low, high] = bounds(y).map((name) => rows[name]);
  const ownBaseline = (row) => y === "delta" && rows.baseline[row] === row && rows.test_acc_mean[row] !== null;
  const point = (_, row) => ({ row, x: rows[x][row], y: ownBaseline(row) ? 0 : rows[y][row], low: low[row], high: high[row] });
  return rows.model.map(point).filter(({ row, x, y }) => rows.group[row] === group() && x !== null && y !== null);
}

// No other point is as good at the same cost or lower; ties share the front. Ranked are means over
// common seeds, and not by the training times, which what else the machine did has moved.
function paretoFront(every, x) {
  if (x === "train_ms_per_image") return [];
  const points = every.filter(({ row }) => rows.test_acc_common[row] !== null);
  const value = ({ row }) => rows.test_acc_common[row];
  const beats = (a, b) => a.x <= b.x && value(a) >= value(b) && (a.x < b.x || value(a) > value(b));
  return points.filter((b) => !points.some((a) => beats(a, b))).sort((a, b) => a.x - b.x);
}

// Points are pushed apart in the order of their costs, so that no interval hides another.
function sideBySide(points) {
  const costs = points.map((point) => point.x);
  const span = Math.max(...costs) - Math.min(...costs) || 0.5 * Math.max(...costs);
  const step = span * Math.min(0.02, 0.5 / points.length);
  const start = (own) => own.reduce((sum, { x }) => sum + x, 0) / own.length - step * (own.length - 1) / 2;
  const clusters = []; // of neighbours that touch
  for (const point of [...points].sort((a, b) => a.x - b.x)) {
    clusters.push([point]);
    while (clusters.length > 1 && start(clusters.at(-1)) < start(clusters.at(-2)) + step * clusters.at(-2).length) {
      const last = clusters.pop();
      clusters.at(-1).push(...last);
    }
  }
  const places = new Map(clusters.flatMap((own) => own.map((point, i) => [point, start(own) + step * i])));
  return points.map((point) => ({ ...point, at: places.get(point) }));
}

function meanText(point, x, y) {
  const { row } = point;
  const interval = point.low === null ? "no interval" : `[${number(point.low, 2)}, ${number(point.high, 2)}]`;
  const onFront = rows.front_probability[row];
  return [
    `<b>${escaped(rows.model[row])}</b>`,
    `${labels[x]}: ${Number(point.x.toPrecision(6))}`,
    `${labels[y]}: ${number(point.y, 2)} ${interval}`,
    `n = ${rows.n[row]}${rows.verdict[row] ? `, ${escaped(rows.verdict[row])}` : ""}`,
    ...(onFront === null ? [] : [`on the front by MACs: ${number(onFront, 0)} % of resamples`]),
  ].join("<br>");
}

// The single runs of one point; differences are taken to the baseline's run of the same seed.
function runsOf(point, y) {
  const base = new Map(runs.filter(([row]) => row === rows.baseline[point.row]).map(([, seed, , acc]) => [seed, acc]));
  return runs.filter(([row]) => row === point.row)
    .map(([, seed, id, acc]) => ({ seed, id, acc, y: y === "delta" ? acc - base.get(seed) : acc }))
    .filter((run) => Number.isFinite(run.y));
}

function runTrace(points, y, look) {
  const own = points.flatMap((point) => runsOf(point, y).map((run) => ({ ...run, at: point.at })));
  return {
    type: "scatter", mode: "markers", name: "runs", hoverinfo: "text",
    x: own.map((run) => run.at), y: own.map((run) => run.y),
    hovertext: own.map((run) => `${escaped(run.id)}<br>seed ${run.seed}, test accuracy ${number(run.acc, 2)} %`),
    marker: { color: look.colour, symbol: look.symbol, size: 6, opacity: 0.5 },
  };
}

function meanTrace(points, x, y, look) {
  const reach = (end) => points.map((point) => (point.low === null ? null : Math.abs(point[end] - point.y)));
  return {
    type: "scatter", mode: "markers", name: "means", hoverinfo: "text",
    x: points.map((point) => point.at), y: points.map((point) => point.y),
    hovertext: points.map((point) => meanText(point, x, y)),
    error_y: { type: "data", symmetric: false, array: reach("high"), arrayminus: reach("low"), thickness: 1, width: 3 },
    marker: { color: look.colour, symbol: look.symbol, size: 10, line: { width: 1, color: css("--text") } },
  };
}

function frontTrace(points) {
  return {
    type: "scatter", mode: "lines+markers", name: "front", hoverinfo: "skip",
    x: points.map((point) => point.at), y: points.map((point) => point.y),
    line: { color: css("--quiet"), width: 1 },
    marker: { symbol: "circle-open", size: 18, color: css("--quiet") },
  };
}

function costPlot() {
  const [x, y, axis] = ["cost-x", "cost-y", "cost-colour"].map((id) => byId(id).value);
  const points = sideBySide(pointsOf(x, y));
  const shown = shownLooks("cost", axis, points.map((point) => point.row));
  const traces = [...shown].filter(isShown("cost")).map(([value, look]) => {
    const own = points.filter((point) => rows[axis][point.row] === value);
    return [runTrace(own, y, look), meanTrace(own, x, y, look)];
  });
  const front = paretoFront(points, x);
  const single = points.every((point) => point.low === null);
  const note = points.length === 0
    ? `${data.groups[group()]}: no variant has both numbers yet.`
    : `${data.groups[group()]}. Means${single ? "; one seed, so no interval" : " with 95 % intervals"}` +
      `${runs.length ? ", single runs faint" : ""}${front.length ? "; ringed and joined: the Pareto front" : ""}. Equal costs stand side by side.`;
  const layout = { xaxis: { title: { text: labels[x] } }, yaxis: { title: { text: labels[y] } } };
  return { shown, note, layout, revision: `${group()} ${x} ${y}`, traces: [frontTrace(front), ...traces.flat()] };
}

// --- training curves --------------------------------------------------------------------------

const BANDS = 6; // curves beyond which bands only blur

// [epoch, mean, low, high] where the measure is known; an error is what the accuracy leaves.
function pointsOfCurve(curve, y) {
  const [means, lows, highs] = curve[y === "val_err" ? "val_acc" : y];
  const points = curve.epoch.map((epoch, i) => [epoch, means[i], lows[i], highs[i]]);
  const known = points.filter(([, mean]) => mean !== null);
  return y === "val_err" ? known.map(([epoch, mean, low, high]) => [epoch, 100 - mean, 100 - high, 100 - low]) : known;
}

function curveTraces(curve, points, look, banded) {
  const column = (i) => points.map((point) => point[i]);
  const seeds = `${curve.seeds} ${curve.seeds === 1 ? "seed" : "seeds"}`;
  const line = {
    type: "scatter", mode: points.length > 1 ? "lines" : "markers", name: "mean", hoverinfo: "text",
    x: column(0), y: column(1), marker: { color: look.colour, symbol: look.symbol, size: 8 },
    line: { color: look.colour, dash: look.dash === "none" ? "solid" : look.dash, width: 1.75 },
    hovertext: points.map(([epoch, mean, low, high]) =>
      `<b>${escaped(rows.model[curve.row])}</b><br>epoch ${epoch}: ${number(mean, 3)}, ${number(low, 3)} to ${number(high, 3)} over ${seeds}`),
  };
  const band = {
    type: "scatter", mode: "lines", name: "band", hoverinfo: "skip", fill: "toself", opacity: 0.1,
    x: [...column(0), ...column(0).reverse()], y: [...column(3), ...column(2).reverse()],
    line: { width: 0 }, fillcolor: look.colour,
  };
  return banded && curve.seeds > 1 ? [band, line] : [line];
}

// The first epochs of an untrained network would flatten all that follows.
function scale(y, curvePoints) {
  if (y === "train_loss") return { type: "log" };
  const errors = curvePoints.flat().map((point) => (y === "val_acc" ? 100 - point[1] : point[1])).sort((a, b) => a - b);
  const worst = curvePoints.flat().map((point) => (y === "val_acc" ? 100 - point[2] : point[3]));
  const highest = worst.reduce((a, b) => Math.max(a, b), 1);
  const reach = Math.min(100, 1.05 * highest, 3 * (errors[Math.floor(errors.length / 2)] + 5));
  return { range: y === "val_acc" ? [100 - reach, 100] : [0, reach] };
}

function curvesPlot() {
  const [y, axis] = ["curves-y", "curves-colour"].map((id) => byId(id).value);
  const own = curves.map((curve) => [curve, pointsOfCurve(curve, y)])
    .filter(([curve, points]) => rows.group[curve.row] === group() && points.length);
  const shown = shownLooks("curves", axis, own.map(([curve]) => curve.row));
  const kept = own.filter(([curve]) => isShown("curves")([rows[axis][curve.row]]));
  const banded = kept.length <= BANDS;
  const traces = kept.flatMap(([curve, points]) => curveTraces(curve, points, shown.get(rows[axis][curve.row]), banded));
  const bands = !banded ? "; too many for bands: press a legend entry"
    : kept.some(([curve]) => curve.seeds > 1) ? "; bands span their seeds" : "; one seed, so no band";
  const note = own.length === 0
    ? `${data.groups[group()]}: nothing recorded.`
    : `${data.groups[group()]}. Means over the finished runs${bands}.` +
      `${y === "train_loss" ? "" : " Double-click for the whole range."}`;
  const few = own.every(([curve]) => curve.epoch.at(-1) < 10); // no half epochs on the axis
  const layout = { xaxis: { title: { text: "epoch" }, ...(few && { dtick: 1 }) }, yaxis: { title: { text: labels[y] }, ...scale(y, own.map(([, points]) => points)) } };
  return { shown, note, layout, traces, revision: `${group()} ${y}` };
}

// --- drawing ----------------------------------------------------------------------------------

const PLOTS = { cost: costPlot, curves: curvesPlot };
const isShown = (id) => ([value]) => alone[id] === null || alone[id] === value;

// The looks of those values that are there to be drawn; one that is not cannot stand alone.
function shownLooks(id, axis, places) {
  const present = new Set(places.map((row) => rows[axis][row]));
  if (!present.has(alone[id])) alone[id] = null;
  return new Map([...looks(axis)].filter(([value]) => present.has(value)));
}

function framed(layout, width, revision) {
  const axis = { gridcolor: css("--line"), linecolor: css("--line"), zeroline: false, automargin: true };
  return {
    width, height: Math.max(300, Math.min(520, 0.6 * width)), showlegend: false, hovermode: "closest", uirevision: revision,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 48, r: 8, t: 32, b: 40 },
    font: { family: "system-ui, sans-serif", size: 12, color: css("--text") },
    hoverlabel: { align: "left", bgcolor: css("--raised"), bordercolor: css("--quiet"), font: { size: 11, color: css("--text") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--text") },
    dragmode: width < 500 ? false : "zoom", // a finger scrolls the page
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
}

// Only these buttons: Plotly has one that uploads the plot, which takes the address too.
const CONFIG = {
  displaylogo: false, displayModeBar: true, plotlyServerURL: "",
  modeBarButtons: [["zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
};

function draw(id) {
  const plot = byId(id);
  if (!plot) return;
  const { shown, note, layout, traces, revision } = PLOTS[id]();
  if (byId(`${id}-note`).textContent !== note) byId(`${id}-note`).textContent = note; // read out once
  drawLegend(id, shown);
  plot.hidden = shown.size === 0;
  if (!plot.hidden) Plotly.react(plot, traces, framed(layout, plot.clientWidth, revision), CONFIG);
}

const drawAll = () => Object.keys(PLOTS).forEach(draw);

function showGroup() {
  for (const part of all("[data-group]")) part.hidden = Number(part.dataset.group) !== group();
  if (byId("filter")) filter();
  drawAll();
}

function start() {
  for (const part of all(".controls")) part.hidden = false;
  all("table").forEach(makeSortable);
  byId("group")?.addEventListener("change", showGroup);
  byId("filter")?.addEventListener("input", filter);
  for (const select of all("select[data-column]")) select.addEventListener("change", filter);
  for (const id of Object.keys(PLOTS)) {
    byId(id)?.replaceChildren();
    for (const select of all(`select[id^="${id}-"]`)) select.addEventListener("change", () => draw(id));
  }
  for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", drawAll);
  let width = innerWidth; // a phone's tool bars change the height alone
  addEventListener("resize", () => {
    if (innerWidth !== width) requestAnimationFrame(drawAll);
    width = innerWidth;
  });
  showGroup();
}

start();
