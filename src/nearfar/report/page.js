"use strict";
// Names and labels come from users' files: they are only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

// Plotly takes <b>, <a> and the like in a name for markup.
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function layout(more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: "zoom",
    font: { family: token("sans"), size: 12, color: token("soft") },
    hoverlabel: { bgcolor: token("panel"), bordercolor: token("line"), font: { color: token("ink"), family: token("sans") } },
    ...more,
  };
}

function drawCurve(figure) {
  const curve = data.curves[figure.dataset.curve];
  const few = curve.x.length < 40;
  const traces = [{
    x: curve.x, y: curve.y, type: "scatter", mode: few ? "lines+markers" : "lines",
    line: { color: token("accent"), width: 2 }, marker: { size: 5 },
    hovertemplate: curve.axis + " %{x:.4~g}<br><b>%{y:.4~g}</b><extra></extra>",
  }];
  const notes = [];
  if (curve.name) Object.assign(traces[0], { name: escaped(curve.name), showlegend: true });
  if (curve.beside) {
    traces.push({
      ...traces[0], x: curve.beside.x, y: curve.beside.y, name: escaped(curve.beside.name),
      line: { color: palette[1], width: 2 },
    });
  }
  if (curve.chance && curve.chance.some((y) => y !== null)) {
    traces.push({
      x: curve.x, y: curve.chance, type: "scatter", mode: "lines", showlegend: false, hovertemplate: "chance level %{y:.4~g}<extra></extra>",
      line: { color: token("faint"), width: 1.5, dash: "dash" },
    });
    const last = curve.chance.findLastIndex((y) => y !== null);
    notes.push({ x: curve.x[last], y: curve.chance[last], text: "chance level", showarrow: false, xanchor: "right", yanchor: "bottom", font: { color: token("soft") } });
  }
  const axis = { gridcolor: token("line"), linecolor: token("line"), zeroline: false, fixedrange: false, automargin: true };
  // Around a number that never changes Plotly shows 1 more and 1 less, where a small one looks like 0.
  const drawn = traces.flatMap((trace) => trace.y).filter((y) => y !== null);
  const level = drawn.length && drawn.every((y) => y === drawn[0] && y > 0) ? { range: [0, 2 * drawn[0]] } : {};
  Plotly.react(figure.querySelector(".plot"), traces, layout({
    margin: { l: 44, r: 8, t: curve.beside ? 34 : 10, b: 36 }, annotations: notes, hovermode: "closest",
    showlegend: Boolean(curve.beside), legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    xaxis: { ...axis, showgrid: false, rangemode: "tozero", title: { text: curve.axis, standoff: 6 }, nticks: 7 },
    yaxis: { ...axis, nticks: 6, exponentformat: "power", rangemode: curve.zero ? "tozero" : "normal", ...level },
  }), { responsive: true, displayModeBar: false });
}

// The ten colors of Matthew Petroff, "Accessible Color Sequences for Data Visualization" (arXiv 2107.02270), grays last.
const palette = ["#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#e76300", "#92dadd", "#b9ac70", "#717581", "#94a4a2"];

const map = {
  ...data.map,
  plot: document.querySelector(".map .plot"),
  chips: document.querySelector(".chips"),
  panel: document.querySelector(".near"),
  hover: document.querySelector(".hover"),
  by: "label", // what points are colored by
  tint: [], // of each point, by that
  shown: null, // the class that is brought forward, or null for all
  chosen: null, // the point that was clicked
  named: palette.length, // so many classes have a color
};

function classesOf(labels) {
  map.named = palette.length;
  const count = new Map();
  for (const label of labels) if (label !== null) count.set(label, (count.get(label) || 0) + 1);
  const byCount = [...count.keys()].sort((a, b) => count.get(b) - count.get(a));
  if (byCount.length > palette.length) map.named = palette.length - 2; // the rest is gray, so no class may be
  return [...byCount.slice(0, map.named).sort(), ...byCount.slice(map.named).sort()];
}

function colorOf(label) {
  const place = map.classes.indexOf(label);
  if (!map.classes.length) return token("accent");
  return place >= 0 && place < map.named ? palette[place] : token("faint");
}

function sprite(i) {
  const element = make("div", "sprite");
  const last = Math.max(1, map.across - 1);
  element.style.backgroundSize = map.across * 100 + "%";
  element.style.backgroundPosition = `${((i % map.across) / last) * 100}% ${(Math.floor(i / map.across) / last) * 100}%`;
  return element;
}

// Of a row: what each of its columns holds, a line each.
function cells(i) {
  const list = make("dl", "words");
  map.columns.forEach((name, c) => list.append(make("dt", "", name), make("dd", "", map.cells[i][c] || "–")));
  return list;
}

function otherCells(j, i) {
  const list = make("dl", "words");
  map.columns.forEach((name, c) => {
    if (map.cells[j][c] !== map.cells[i][c]) list.append(make("dt", "", name), make("dd", "", map.cells[j][c] || "–"));
  });
  return list.children.length ? list : make("span", "none", map.hidden ? "the same in all these columns" : "the same in every column");
}

// How the samples of each face are drawn: one alone, and one as a neighbor of another. worded: they are read, which takes a wider box.
const faces = {
  thumbnails: { worded: false, alone: sprite, neighbor: (j) => sprite(j), remark: "" },
  sounds: { worded: false, alone: sprite, neighbor: (j) => sprite(j), remark: "" },
  cells: { worded: true, alone: cells, neighbor: otherCells, remark: ", and what differs" },
  excerpts: {
    worded: true, alone: (i) => make("p", "excerpt", map.excerpts[i]),
    neighbor: (j) => make("p", "excerpt", map.excerpts[j]), remark: "",
  },
};

function drawMap() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const type = gl ? "scattergl" : "scatter";
  const opacity = (label) => {
    if (map.shown !== null) return map.shown === label ? 0.85 : 0.08;
    return map.classes.length > map.named && map.classes.indexOf(label) >= map.named ? 0.4 : 0.85;
  };
  const axis = { visible: false };
  const ends = (values) => [Math.min(-0.1, ...values) - 0.05, Math.max(0.1, ...values) + 0.05];
  const near = map.chosen === null ? [] : map.near[map.chosen];
  const rings = map.chosen === null ? [] : [map.chosen, ...near];
  Plotly.react(map.plot, [{
    x: map.x, y: map.y, type, mode: "markers", hoverinfo: "none",
    marker: {
      size: map.x.length > 1500 ? 5 : 7, color: map.tint.map(colorOf), line: { width: 0 },
      opacity: map.tint.map(opacity),
    },
  }, {
    x: rings.map((i) => map.x[i]), y: rings.map((i) => map.y[i]), type: "scatter", mode: "markers", hoverinfo: "skip",
    marker: { symbol: "circle-open", size: rings.map((_, k) => (k ? 12 : 18)), color: token("ink"), line: { width: rings.map((_, k) => (k ? 1.5 : 3)) } },
  }], layout({
    margin: { l: 0, r: 0, t: 8, b: 0 }, hovermode: "closest", hoverdistance: 12, uirevision: "keep",
    xaxis: { ...axis, range: ends(map.x) }, yaxis: { ...axis, range: ends(map.y), scaleanchor: "x" },
  }), { responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: "reset" });
}

// What points can be colored by: labels, and what else is known of the samples.
function colorBy(name) {
  map.by = name;
  map.tint = name === "label" ? map.label : map.colors[name];
  map.classes = classesOf(map.tint);
  map.shown = null;
  drawChips();
}

function chooser() {
  const others = Object.keys(map.colors || {});
  const known = map.label.some((label) => label !== null) ? ["label", ...others] : others;
  if (!known.length) return null;
  const select = make("select", "by");
  select.setAttribute("aria-label", "Color points by");
  select.append(...known.map((name) => new Option(`color by ${name}`, name, false, name === map.by)));
  if (!known.includes(map.by)) select.prepend(new Option("one color", "label", true, true));
  select.onchange = () => { colorBy(select.value); drawMap(); map.chips.querySelector(".by").focus(); };
  return select;
}

function drawChips() {
  const by = chooser();
  map.chips.replaceChildren(...(by ? [by] : []));
  if (!map.classes.length) return;
  const top = map.classes.slice(0, map.named);
  const press = (label) => {
    map.shown = map.shown === label ? null : label;
    for (const chip of map.chips.querySelectorAll("button")) chip.setAttribute("aria-pressed", String(chip.label === map.shown));
    const select = map.chips.querySelector(".rest");
    if (select) select.value = String(map.classes.indexOf(map.shown));
    drawMap();
  };
  for (const label of top) {
    const chip = make("button");
    const dot = make("i");
    dot.style.background = colorOf(label);
    chip.append(dot, make("span", "", label));
    chip.label = label;
    chip.type = "button";
    chip.setAttribute("aria-pressed", "false");
    chip.onclick = () => press(label);
    map.chips.append(chip);
  }
  if (map.classes.length > top.length) {
    const select = make("select", "rest");
    select.setAttribute("aria-label", "Bring some points forward");
    select.append(new Option(`all ${map.classes.length}`, "-1"), ...map.classes.map((label, i) => new Option(label, String(i))));
    select.onchange = () => press(map.classes[Number(select.value)] ?? map.shown);
    map.chips.append(select);
  }
}

function showHover(event) {
  const point = event.points[0];
  if (point.curveNumber !== 0) return;
  const i = point.pointIndex;
  const lines = map.label[i] === null ? [] : [make("b", "", map.label[i])];
  if (map.by !== "label" && map.tint[i] !== null) lines.push(make("span", "", map.tint[i] + " · "));
  lines.push(make("span", "", map.name[i]));
  const { worded, alone } = faces[map.face];
  map.hover.classList.toggle("wide", worded);
  map.hover.replaceChildren(...(worded ? [...lines, alone(i)] : [alone(i), ...lines]));
  map.hover.hidden = false;
  const { clientX: x, clientY: y } = event.event;
  const { offsetWidth: width, offsetHeight: height } = map.hover;
  map.hover.style.left = Math.max(4, x + 18 + width > innerWidth ? x - 18 - width : x + 18) + "px";
  map.hover.style.top = Math.max(4, Math.min(y - height / 2, innerHeight - height - 4)) + "px";
}

function showNear(event) {
  const point = event.points[0];
  if (point.curveNumber !== 0) return;
  const i = (map.chosen = point.pointIndex);
  const { worded, alone, neighbor, remark } = faces[map.face];
  const chosen = make("div", "chosen");
  const named = make("div");
  if (map.label[i] !== null) named.append(make("b", "", map.label[i]));
  named.append(map.name[i]);
  chosen.append(...(worded ? [named, alone(i)] : [alone(i), named]));
  for (const element of [map.panel, chosen]) element.classList.toggle("worded", worded);
  const tiles = make("div", "tiles");
  map.near[i].forEach((j, k) => {
    const same = map.label[i] === null || map.label[j] === null ? "" : map.label[i] === map.label[j] ? "same" : "other";
    const tile = make("figure", "tile " + same);
    tile.title = map.name[j];
    const caption = make("figcaption");
    caption.append(make("b", "", map.similarity[i][k] === null ? "–" : map.similarity[i][k].toFixed(2)));
    caption.append(make("span", "", { same: "✓\u00a0", other: "✗\u00a0", "": "" }[same] + (map.label[j] ?? "").replaceAll("/", "/\u200b")));
    tile.append(...(worded ? [caption, neighbor(j, i)] : [neighbor(j, i), caption]));
    tiles.append(tile);
  });
  map.panel.replaceChildren(chosen, make("h3", "", `Its nearest neighbors by cosine similarity${remark}:`), tiles);
  drawMap();
}

function draw() {
  document.querySelectorAll(".curve").forEach(drawCurve);
  if (map.plot) drawMap();
}

// Plotly lies in the page compressed, which makes the page a third of the size.
async function unpack() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(make("script", "", await new Response(stream).text()));
}

async function begin() {
  await unpack();
  if (map.plot) {
    colorBy("label");
    if (map.sprite) document.head.append(make("style", "", `.sprite { background-image: url("${map.sprite}"); }`));
  }
  draw();
  if (map.plot) {
    map.plot.on("plotly_hover", showHover);
    map.plot.on("plotly_unhover", () => { map.hover.hidden = true; });
    map.plot.on("plotly_click", showNear);
  }
  dark.addEventListener("change", draw);
  document.body.dataset.drawn = "yes";
}

begin();
