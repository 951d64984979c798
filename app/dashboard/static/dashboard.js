// The dashboard, live: charts from figures, and texts and cells as the server formats them. Without this script the page
// shows the same, as it was when it was loaded.
"use strict";

const board = document.getElementById("dashboard").dataset;

// The charts by name, with the lines that are drawn.
const charts = Object.fromEntries(JSON.parse(board.charts).map(chart => [chart.name, {...chart, lines: chart.lines.filter(line => line.colour)}]));

let columns = {}; // by the line's name
const plots = new Map(); // by the element

const wide = matchMedia("(min-width: 60rem)");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const two = n => String(n).padStart(2, "0");

function clock(seconds) {
  const d = new Date(seconds * 1000);
  return `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;
}

// --- Charts --------------------------------------------------------------------------------------------------------

const heightOf = chart => wide.matches ? chart.wide : chart.narrow;
const dashName = dash => !dash ? "solid" : dash[0] < 4 ? "dotted" : "dashed";
const dataOf = chart => [columns.time, ...chart.lines.map(line => columns[line.name])];

// names writes what each line is at its right end, one below the other where they meet.
function names(chart) {
  return plot => {
    const ratio = devicePixelRatio, gap = 14 * ratio, {left, top, width, height} = plot.bbox;
    const ends = [];
    chart.lines.forEach((line, i) => {
      const value = plot.data[i + 1].at(-1);
      if (value != null) ends.push({line, y: plot.valToPos(value, "y", true)});
    });
    ends.sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => end.y = Math.max(end.y, i ? ends[i - 1].y + gap : top));
    ends.reverse().forEach((end, i) => end.y = Math.min(end.y, i ? ends[i - 1].y - gap : top + height));
    const ctx = plot.ctx;
    ctx.save();
    ctx.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    for (const {line, y} of ends) {
      ctx.fillStyle = colour(line.colour);
      ctx.fillText(line.name, left + width + 6 * ratio, y);
    }
    ctx.restore();
  };
}

function options(chart, width) {
  const axis = {stroke: colour("--ink-soft"), grid: {stroke: colour("--line"), width: 1}, ticks: {stroke: colour("--line"), width: 1}, font: "12px system-ui, sans-serif"};
  return {
    width, height: heightOf(chart),
    padding: [10, 74, 0, 0],
    cursor: {drag: {x: false, y: false}, points: {size: 7}},
    legend: {markers: {width: 2, dash: (plot, i) => dashName(chart.lines[i - 1].dash)}},
    scales: {
      x: {range: (plot, min, max) => [Math.min(min, max - 60), max]},
      y: {range: (plot, min, max) => [0, Math.max(max ?? 0, 1) * 1.08]},
    },
    axes: [
      {...axis, space: 70, values: (plot, splits) => splits.map(clock)},
      {...axis, size: 40, incrs: [.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]},
    ],
    series: [
      {label: "UTC", value: (plot, v, i, at) => clock(at == null ? columns.time.at(-1) : v)},
      ...chart.lines.map(line => ({
        label: line.name, stroke: colour(line.colour), width: line.width, dash: line.dash, spanGaps: false,
        fill: line.fill ? colour("--accent-wash") : undefined, points: {show: false},
        value: (plot, v, i, at) => String((at == null ? plot.data[i].at(-1) : v) ?? "–"), // nothing pointed at: the newest
      })),
    ],
    hooks: {draw: [names(chart)]},
  };
}

function draw() {
  for (const element of document.querySelectorAll("[data-chart]")) {
    const chart = charts[element.dataset.chart];
    let plot = plots.get(element);
    if (plot) {
      plot.setData(dataOf(chart));
      continue;
    }
    if (element.hidden) {
      element.hidden = false;
      for (const details of element.parentElement.querySelectorAll("details")) details.open = false;
    }
    plot = new uPlot(options(chart, element.clientWidth), dataOf(chart), element);
    plots.set(element, plot);
  }
}

// redraw is for other colours, which are drawn in.
function redraw() {
  plots.forEach(plot => plot.destroy());
  plots.clear();
  if (columns.time) draw();
}

// --- Texts and tables ----------------------------------------------------------------------------------------------

function say(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

// fill changes only the cells that changed, so that what a person selects or reads stays where it is.
function fill(table, rows) {
  const heads = table.tHead.rows[0].cells, body = table.tBodies[0];
  rows.forEach((cells, i) => {
    const row = body.rows[i] || body.insertRow();
    cells.forEach((text, j) => {
      const cell = row.cells[j] || row.insertCell();
      cell.className = cells.length > 1 ? heads[j].className : "";
      cell.colSpan = cells.length === 1 ? heads.length : 1;
      if (table.dataset.link && j === 0 && cells.length > 1) link(cell, table.dataset.link, text);
      else say(cell, text);
    });
    while (row.cells.length > cells.length) row.deleteCell(-1);
  });
  while (body.rows.length > rows.length) body.deleteRow(-1);
}

// link says text as a link to what is behind it.
function link(cell, to, text) {
  if (cell.textContent === text && cell.firstElementChild) return;
  const a = document.createElement("a");
  a.href = to + encodeURIComponent(text);
  a.textContent = text;
  cell.replaceChildren(a);
}

let reasons; // as they were shown last; the page may have come with some that hold no longer

// explain shows the findings. Only if there are others than before: what a person opened or selected stays.
function explain(html) {
  if (html === reasons) return;
  const box = document.getElementById("findings"), was = [...box.querySelectorAll("details")].map(d => d.open);
  box.innerHTML = html; // the server escapes it
  box.querySelectorAll("details").forEach((d, i) => { if (i in was) d.open = was[i]; });
  offerCopies(box);
  reasons = html;
}

let shown; // the latest view, for tables that are opened between two

function show(view) {
  shown = view;
  explain(view.findings);
  for (const element of document.querySelectorAll("[data-text]")) say(element, view.texts[element.dataset.text] ?? "–");
  fillTables();
  document.getElementById("verdict").className = "note " + view.class;
  document.title = `${view.texts.slots} slots, ${view.level} | Connections`;
  draw();
}

// fillTables leaves tables out that are folded up: they are filled when they are opened.
function fillTables() {
  for (const table of document.querySelectorAll("[data-table]")) {
    const rows = shown?.tables[table.dataset.table];
    if (rows && !table.closest("details:not([open])")) fill(table, rows);
  }
}
document.addEventListener("toggle", fillTables, true);

// --- The stream ----------------------------------------------------------------------------------------------------

let source, later;

function live(on, text) {
  const element = document.getElementById("live");
  element.className = on ? "on" : "off";
  say(element, text);
}

function open() {
  close();
  source = new EventSource(board.stream);
  source.addEventListener("history", event => {
    const view = JSON.parse(event.data);
    columns = view.columns;
    live(true, "Live");
    show(view);
  });
  source.addEventListener("now", event => {
    const view = JSON.parse(event.data);
    for (const name in columns) columns[name] = [...columns[name], ...view.columns[name]].slice(-board.points);
    show(view);
  });
  source.addEventListener("bye", () => {
    close();
    live(false, "You may no longer watch this: as it was");
  });
  source.addEventListener("error", () => {
    live(false, "The server does not send, trying again: as it was");
    if (source?.readyState === EventSource.CLOSED) later = setTimeout(open, 10000); // it was refused, not lost
  });
}

function close() {
  clearTimeout(later);
  source?.close();
  source = undefined;
}

// A hidden page does not watch: browsers have few connections for one server. The history comes with the next.
document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
addEventListener("pagehide", close);
addEventListener("pageshow", event => { if (event.persisted) open(); });

// --- Tests ---------------------------------------------------------------------------------------------------------

async function run(form) {
  const button = form.querySelector("button"), name = form.querySelector("h3").textContent;
  const status = document.getElementById("test-status"), result = document.getElementById("test-result");
  button.disabled = true;
  status.textContent = `${name}: under way. The charts show what it does.`;
  try {
    const answer = await fetch(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`, {headers: {Accept: "application/json"}});
    const text = await answer.text();
    status.textContent = `${name}: ${answer.ok ? "done" : "answered with " + answer.status}.`;
    result.textContent = text;
    result.hidden = false;
  } catch (error) {
    status.textContent = `${name}: no answer (${error.message}).`;
  }
  button.disabled = false;
}

for (const form of document.querySelectorAll("form.test")) {
  form.addEventListener("submit", event => {
    event.preventDefault();
    run(form);
  });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
function fit() {
  plots.forEach((plot, element) => {
    const width = element.clientWidth, height = heightOf(charts[element.dataset.chart]);
    if (width && (width !== plot.width || height !== plot.height)) plot.setSize({width, height});
  });
}
new ResizeObserver(() => requestAnimationFrame(fit)) // not while sizes are reported: what it changes would be reported too late
  .observe(document.querySelector(".charts"));
document.getElementById("refresh").hidden = true;
if (!document.hidden) open();
