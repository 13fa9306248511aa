"use strict";
// A map of points drawn by WebGL. Names and labels come from users' files: they are only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);
const one = (selector) => document.querySelector(selector);
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
// The ten colors of Matthew Petroff, "Accessible Color Sequences for Data Visualization" (arXiv 2107.02270), grays last.
const palette = ["#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#e76300", "#92dadd", "#b9ac70", "#717581", "#94a4a2"];

function bytes(text) {
  const raw = atob(text), made = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) made[k] = raw.charCodeAt(k);
  return made.buffer; // numbers are little-endian, as on all machines of today
}
const xy = new Uint16Array(bytes(data.xy)); // of point i: 2i, 2i + 1
const row = new Int32Array(bytes(data.row)); // in the embeddings
const count = row.length;
const columns = Object.entries(data.columns).map(([name, column]) => ({ name, values: column.values, codes: new Int32Array(bytes(column.codes)) }));
const picture = new Map(data.pictures ? [...new Int32Array(bytes(data.pictures.of))].map((i, k) => [i, k]) : []);

const field = one(".field"), told = one(".told"), hover = one(".hover"), chips = one(".chips");
const canvas = one("canvas.points"), over = one("canvas.drawn"), pen = over.getContext("2d");
const state = {
  x: 0.5, y: 0.5, zoom: 1, // the middle, and how much larger than the whole
  by: columns.find((c) => c.name === "label") || columns[0] || null,
  shown: null, // the value brought forward
  found: null, // of each point whether it is found, or null
  matches: [], at: -1, // what is found, and which of it was gone to
  chosen: [], isChosen: new Uint8Array(count),
  cuts: false, line: null, // the lasso
};

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
const say = (text) => { told.textContent = text; };
const valueOf = (column, i) => (column.codes[i] < 0 ? null : column.values[column.codes[i]]);

// Colors. Of more values than colors the most frequent have one, and the rest are gray.
let named = new Map();
function nameColors() {
  named = new Map();
  if (!state.by) return;
  const counts = new Array(state.by.values.length).fill(0);
  for (const code of state.by.codes) if (code >= 0) counts[code]++;
  const most = counts.length > palette.length ? palette.length - 2 : palette.length;
  const top = counts.map((n, code) => code).sort((a, b) => counts[b] - counts[a] || a - b).slice(0, most).sort((a, b) => a - b);
  top.forEach((code, k) => named.set(code, palette[k]));
}
function rgb(color) {
  pen.fillStyle = "#000";
  pen.fillStyle = color; // whatever way a color is written, a canvas gives it back as #rrggbb
  return [1, 3, 5].map((k) => parseInt(pen.fillStyle.slice(k, k + 2), 16));
}

// WebGL: places are bytes as they came, colors are written anew when anything about them changes.
let gl, buffers, uniforms, colors;
const VERTEX = `attribute vec2 at; attribute vec4 color; uniform vec2 middle, scale; uniform float size; varying vec4 tint;
void main() { gl_Position = vec4((at - middle) * scale, color.a < 0.3 ? 0.5 : 0.0, 1.0); gl_PointSize = color.a > 0.95 ? size * 1.7 : size; tint = color; }`;
const FRAGMENT = `precision mediump float; varying vec4 tint;
void main() { vec2 d = gl_PointCoord - 0.5; if (dot(d, d) > 0.25) discard; gl_FragColor = vec4(tint.rgb * tint.a, tint.a); }`;
function begin() {
  gl = canvas.getContext("webgl", { antialias: true, premultipliedAlpha: true });
  if (!gl) {
    const note = one(".field .missing");
    note.hidden = false;
    note.textContent = "This browser has no WebGL, by which the points are drawn. Search and choosing work all the same.";
    return;
  }
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  uniforms = Object.fromEntries(["middle", "scale", "size"].map((name) => [name, gl.getUniformLocation(program, name)]));
  buffers = { at: gl.createBuffer(), color: gl.createBuffer() };
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers.at);
  gl.bufferData(gl.ARRAY_BUFFER, xy, gl.STATIC_DRAW);
  const at = gl.getAttribLocation(program, "at"), color = gl.getAttribLocation(program, "color");
  gl.enableVertexAttribArray(at);
  gl.vertexAttribPointer(at, 2, gl.UNSIGNED_SHORT, true, 0, 0);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers.color);
  gl.enableVertexAttribArray(color);
  gl.vertexAttribPointer(color, 4, gl.UNSIGNED_BYTE, true, 0, 0);
}
function paint() {
  if (!gl) return;
  colors ||= new Uint8Array(4 * count);
  const gray = rgb(token("faint")), accent = rgb(token("accent")), ink = rgb(token("ink"));
  const tints = new Map([...named].map(([code, color]) => [code, rgb(color)]));
  const dim = count > 20000 ? 24 : 40;
  for (let i = 0; i < count; i++) {
    const code = state.by ? state.by.codes[i] : -1;
    const tint = state.isChosen[i] ? ink : !state.by ? accent : tints.get(code) || gray;
    const forward = (state.shown === null || code === state.shown) && (!state.found || state.found[i]);
    const strong = state.isChosen[i] || (state.found && state.found[i] && forward);
    colors.set(tint, 4 * i);
    colors[4 * i + 3] = strong ? 255 : forward ? 200 : dim;
  }
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers.color);
  gl.bufferData(gl.ARRAY_BUFFER, colors, gl.DYNAMIC_DRAW);
  draw();
}

// From the places of points, 0 to 65535, to pixels of the field and back.
function scales() {
  const width = field.clientWidth, height = field.clientHeight;
  return { width, height, pixels: 0.94 * Math.min(width, height) * state.zoom };
}
function place(i, { width, height, pixels } = scales()) {
  return [width / 2 + (xy[2 * i] / 65535 - state.x) * pixels, height / 2 - (xy[2 * i + 1] / 65535 - state.y) * pixels];
}
function under(x, y) {
  const { width, height, pixels } = scales();
  return [state.x + (x - width / 2) / pixels, state.y - (y - height / 2) / pixels];
}
let waits = false;
function draw() {
  if (waits) return;
  waits = true;
  requestAnimationFrame(() => { waits = false; drawNow(); });
}
function drawNow() {
  const { width, height, pixels } = scales(), ratio = devicePixelRatio;
  for (const each of [canvas, over]) {
    if (each.width !== Math.round(width * ratio) || each.height !== Math.round(height * ratio)) {
      each.width = Math.round(width * ratio);
      each.height = Math.round(height * ratio);
    }
  }
  if (gl) {
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(uniforms.middle, state.x, state.y);
    gl.uniform2f(uniforms.scale, (2 * pixels) / width, (2 * pixels) / height);
    const size = Math.max(2, Math.min(9, 260 / Math.sqrt(count))) * Math.min(2.2, Math.max(1, state.zoom ** 0.35));
    gl.uniform1f(uniforms.size, size * ratio);
    gl.drawArrays(gl.POINTS, 0, count);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.strokeStyle = token("ink");
  pen.lineWidth = 1.5;
  if (state.line && state.line.length) {
    pen.fillStyle = token("accent") + "22";
    pen.beginPath();
    state.line.forEach(([x, y]) => pen.lineTo(x, y));
    pen.closePath();
    pen.fill();
    pen.stroke();
  }
  if (state.at >= 0) ring(state.matches[state.at], 10);
}
function ring(i, size) {
  const [x, y] = place(i);
  pen.lineWidth = 2.5;
  pen.beginPath();
  pen.arc(x, y, size, 0, 7);
  pen.stroke();
}

// The nearest point to a place, by a grid of 128 x 128 parts.
const PARTS = 128, part = (v) => Math.min(PARTS - 1, (v * PARTS) >> 16);
const starts = new Int32Array(PARTS * PARTS + 1), sorted = new Int32Array(count);
for (let i = 0; i < count; i++) starts[part(xy[2 * i + 1]) * PARTS + part(xy[2 * i]) + 1]++;
for (let k = 0; k < PARTS * PARTS; k++) starts[k + 1] += starts[k];
{
  const next = starts.slice();
  for (let i = 0; i < count; i++) sorted[next[part(xy[2 * i + 1]) * PARTS + part(xy[2 * i])]++] = i;
}
function nearest(x, y, reach) {
  const { pixels } = scales(), [u, v] = under(x, y).map((w) => w * 65535), far = (reach / pixels) * 65535;
  const clamp = (w) => Math.max(0, Math.min(PARTS - 1, Math.floor((w * PARTS) / 65536)));
  let best = -1, least = far * far;
  for (let b = clamp(v - far); b <= clamp(v + far); b++) {
    for (let a = clamp(u - far); a <= clamp(u + far); a++) {
      for (let k = starts[b * PARTS + a]; k < starts[b * PARTS + a + 1]; k++) {
        const i = sorted[k], distance = (xy[2 * i] - u) ** 2 + (xy[2 * i + 1] - v) ** 2;
        if (distance <= least) { least = distance; best = i; }
      }
    }
  }
  return best;
}

// What is said of a point.
function described(i) {
  const known = columns.map((c) => [c.name, valueOf(c, i)]).filter(([, value]) => value !== null);
  return [data.name[i], ...known.map(([name, value]) => `${name} ${value}`)].join(", ");
}
function showHover(event, i) {
  hover.hidden = i < 0;
  if (i < 0) return;
  const parts = [];
  if (picture.has(i)) {
    const k = picture.get(i), across = data.pictures.across, last = Math.max(1, across - 1), cell = make("div", "sprite");
    cell.style.backgroundSize = across * 100 + "%";
    cell.style.backgroundPosition = `${((k % across) / last) * 100}% ${(Math.floor(k / across) / last) * 100}%`;
    cell.setAttribute("role", "img");
    cell.setAttribute("aria-label", `Picture of ${data.name[i]}`);
    parts.push(cell);
  }
  for (const column of columns) if (valueOf(column, i) !== null) parts.push(make("b", "", `${column.name}: ${valueOf(column, i)}`));
  hover.replaceChildren(...parts, make("span", "", data.name[i]));
  const { offsetWidth: width, offsetHeight: height } = hover, { clientX: x, clientY: y } = event;
  hover.style.left = Math.max(4, x + 18 + width > innerWidth ? x - 18 - width : x + 18) + "px";
  hover.style.top = Math.max(4, Math.min(y - height / 2, innerHeight - height - 4)) + "px";
}

// Moving and zooming.
function move(dx, dy) {
  const { pixels } = scales();
  state.x -= dx / pixels;
  state.y += dy / pixels;
  draw();
}
function zoom(factor, x = field.clientWidth / 2, y = field.clientHeight / 2) {
  const [u, v] = under(x, y);
  state.zoom = Math.max(0.5, Math.min(2000, state.zoom * factor));
  const [a, b] = under(x, y);
  state.x += u - a;
  state.y += v - b;
  draw();
}
function whole() {
  Object.assign(state, { x: 0.5, y: 0.5, zoom: 1 });
  draw();
}

// Choosing.
function inside(x, y, line) {
  let is = false;
  for (let a = 0, b = line.length - 1; a < line.length; b = a++) {
    const [ax, ay] = line[a], [bx, by] = line[b];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) is = !is;
  }
  return is;
}
function choose(points) {
  state.chosen = points;
  state.isChosen.fill(0);
  for (const i of points) state.isChosen[i] = 1;
  one("#chosen").hidden = !points.length;
  const shown = points.slice(0, 200);
  one("#chosen .count").textContent = `${points.length.toLocaleString("en")} of ${count.toLocaleString("en")}` + (points.length > shown.length ? `; the first ${shown.length} are listed.` : ".");
  one("#chosen thead tr").replaceChildren(...header().map((name) => Object.assign(make("th", "", name), { scope: "col" })));
  one("#chosen tbody").replaceChildren(...shown.map((i) => {
    const line = make("tr");
    line.append(...cells(i).map((cell) => make("td", "", String(cell))));
    return line;
  }));
  say(`${points.length.toLocaleString("en")} chosen.`);
  paint();
}
const header = () => ["path", "row", ...columns.map((c) => c.name)];
const cells = (i) => [data.name[i], row[i], ...columns.map((c) => valueOf(c, i) ?? "")];
// Text that a spreadsheet would compute gets an apostrophe before it, as in all tables of nearfar.
function cell(value) {
  let text = String(value);
  if (/^[=+\-@'\s]/.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) text = "'" + text;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
function save() {
  const lines = [header(), ...state.chosen.map(cells)].map((line) => line.map(cell).join(",") + "\n");
  const link = make("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  link.download = "chosen.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Searching: text of any case in the name or in a value.
function find(text) {
  const wanted = text.trim().toLowerCase();
  state.at = -1;
  state.found = null;
  state.matches = [];
  if (wanted) {
    const fits = columns.map((c) => c.values.map((value) => value.toLowerCase().includes(wanted)));
    state.found = new Uint8Array(count);
    for (let i = 0; i < count; i++) {
      if (data.name[i].toLowerCase().includes(wanted) || columns.some((c, k) => c.codes[i] >= 0 && fits[k][c.codes[i]])) {
        state.found[i] = 1;
        state.matches.push(i);
      }
    }
  }
  one("#take").disabled = !state.matches.length;
  say(wanted ? `${state.matches.length.toLocaleString("en")} found.` : "");
  paint();
}
function go(by) {
  const points = state.matches.length ? state.matches : null;
  if (!points) return say("Nothing is found to go to.");
  state.at = (state.at + by + points.length) % points.length;
  const i = points[state.at];
  state.x = xy[2 * i] / 65535;
  state.y = xy[2 * i + 1] / 65535;
  state.zoom = Math.max(state.zoom, 4);
  say(`${state.at + 1} of ${points.length}: ${described(i)}`);
  draw();
}

function drawChips() {
  const buttons = [...named].map(([code, color]) => {
    const chip = make("button"), dot = make("i");
    dot.style.background = color;
    chip.append(dot, make("span", "", state.by.values[code]));
    chip.type = "button";
    chip.setAttribute("aria-pressed", "false");
    chip.onclick = () => {
      state.shown = state.shown === code ? null : code;
      for (const other of chips.children) other.setAttribute("aria-pressed", String(other === chip && state.shown !== null));
      paint();
    };
    return chip;
  });
  const rest = state.by ? state.by.values.length - named.size : 0;
  chips.replaceChildren(...buttons, ...(rest > 0 ? [make("span", "", `and ${rest.toLocaleString("en")} more, gray`)] : []));
}
function colorBy(name) {
  state.by = columns.find((c) => c.name === name) || null;
  state.shown = null;
  nameColors();
  drawChips();
  paint();
}
function lasso(on) {
  state.cuts = on;
  one("#lasso").setAttribute("aria-pressed", String(on));
  field.classList.toggle("cuts", on);
}

// Pointers: one moves, or draws the lasso; two zoom.
const pointers = new Map();
const local = (event) => {
  const box = field.getBoundingClientRect();
  return [event.clientX - box.left - field.clientLeft, event.clientY - box.top - field.clientTop];
};
field.onpointerdown = (event) => {
  if (event.button > 0) return;
  field.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, local(event));
  state.line = (state.cuts || event.shiftKey) && pointers.size === 1 ? [local(event)] : null;
  hover.hidden = true;
};
field.onpointermove = (event) => {
  const now = local(event), before = pointers.get(event.pointerId);
  if (!before) return showHover(event, nearest(...now, 12));
  if (state.line) {
    state.line.push(now);
    draw();
  } else if (pointers.size === 1) {
    move(now[0] - before[0], now[1] - before[1]);
  } else {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
    zoom(apart(now) / apart(before), ...other);
  }
  pointers.set(event.pointerId, now);
};
field.onpointerup = field.onpointercancel = (event) => {
  pointers.delete(event.pointerId);
  const line = state.line;
  state.line = null;
  if (line && line.length > 2 && event.type === "pointerup") {
    const some = [], now = scales();
    for (let i = 0; i < count; i++) if (inside(...place(i, now), line)) some.push(i);
    choose(some);
  }
  draw();
};
field.onpointerleave = () => { hover.hidden = true; };
field.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...local(event));
}, { passive: false });
const STEP = 60;
const keys = {
  ArrowLeft: () => move(STEP, 0), ArrowRight: () => move(-STEP, 0), ArrowUp: () => move(0, STEP), ArrowDown: () => move(0, -STEP),
  "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: whole,
  l: () => lasso(!state.cuts), n: () => go(1), p: () => go(-1),
  Enter: () => {
    const i = nearest(field.clientWidth / 2, field.clientHeight / 2, 1e4);
    say(i < 0 ? "Nothing is near the middle." : `In the middle: ${described(i)}`);
  },
  Escape: () => { lasso(false); state.line = null; draw(); },
};
field.onkeydown = (event) => {
  const act = keys[event.key] || keys[event.key.toLowerCase()];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
};
one(".tools").onsubmit = (event) => event.preventDefault();
const by = one("#by");
by.append(...columns.map((c) => new Option(c.name, c.name)), new Option("nothing", ""));
by.value = state.by ? state.by.name : "";
by.onchange = () => colorBy(by.value);
let later = 0;
one("#find").oninput = (event) => {
  clearTimeout(later);
  later = setTimeout(() => find(event.target.value), 150);
};
one("#find").onkeydown = (event) => { if (event.key === "Enter") { clearTimeout(later); find(event.target.value); go(1); } };
one("#take").onclick = () => choose(state.matches);
one("#lasso").onclick = () => lasso(!state.cuts);
one("#in").onclick = () => zoom(1.4);
one("#out").onclick = () => zoom(1 / 1.4);
one("#whole").onclick = whole;
one("#save").onclick = save;
one("#clear").onclick = () => choose([]);
new ResizeObserver(draw).observe(field);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
canvas.addEventListener("webglcontextrestored", () => { begin(); paint(); });
if (data.pictures) document.head.append(make("style", "", `.sprite { background-image: url("${data.pictures.sprite}"); }`));
begin();
colorBy(by.value);
