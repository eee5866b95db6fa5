// The page of `geoovseg explore`: two maps over each other in the scene's own grid, and a panel to ask by.
// The raster lies in the middle of a square of 256 * 2^levels pixels, which is the whole world here.
"use strict";
const token = document.querySelector("meta[name=token]").content;
const by = (id) => document.getElementById(id);
const base = new URL(".", location.href);
const address = (path, more = {}) => {
  const url = new URL(path, base);
  for (const [key, value] of Object.entries({...more, token})) url.searchParams.set(key, value);
  return url.href.replaceAll("%7B", "{").replaceAll("%7D", "}");
};
let state, scene, labels, marking = null;
let classes = [];

async function call(path, {body, more} = {}) {
  const given = {headers: {"x-geoovseg-token": token}};
  if (body) Object.assign(given, {method: "POST", body: JSON.stringify(body)});
  let answer;
  try { answer = await fetch(address(path, more), given); } catch { throw new Error("geoovseg explore has ended; start it again"); }
  const found = answer.headers.get("content-type")?.includes("json") ? await answer.json() : {error: await answer.text()};
  if (!answer.ok) throw new Error(found.error || `it failed (${answer.status})`);
  return found;
}
function say(text, error = false) { by("status").textContent = text; by("status").classList.toggle("error", error); }
const made = (name, given = {}, ...inside) => { const e = Object.assign(document.createElement(name), given); e.append(...inside); return e; };

// --- places: pixels of the scene, and the world of the map
const world = () => 256 * 2 ** state.levels;
const place = (col, row) => new maplibregl.MercatorCoordinate((col + state.offset) / world(), (row + state.offset) / world()).toLngLat();
const pixel = (at) => { const m = maplibregl.MercatorCoordinate.fromLngLat(at); return [m.x * world() - state.offset, m.y * world() - state.offset]; };
const bounds = () => [place(0, state.height), place(state.width, 0)];

function begin(id, kind, interactive) {
  const source = {type: "raster", tiles: [tiles(kind)], tileSize: 256, minzoom: 2, maxzoom: state.levels, bounds: bounds().flatMap((at) => at.toArray())};
  const layer = {id: kind, type: "raster", source: kind, paint: {"raster-fade-duration": 0, "raster-resampling": kind === "labels" ? "nearest" : "linear"}};
  return new maplibregl.Map({
    container: id, interactive, attributionControl: false, renderWorldCopies: false, dragRotate: false, pitchWithRotate: false,
    touchPitch: false, maxZoom: state.levels + 4, bounds: bounds(), fitBoundsOptions: {padding: 20},
    style: {version: 8, sources: {[kind]: source}, layers: [layer]},
  });
}
const tiles = (kind) => address(`tiles/${kind}/{z}/{x}/{y}.png`, kind === "labels" ? {v: state.version, outlines: +by("outlines").checked} : {});
function repaint() { labels.getSource("labels").setTiles([tiles("labels")]); }

function start() {
  scene = begin("scene", "scene", true);
  scene.touchZoomRotate.disableRotation();
  scene.addControl(new maplibregl.NavigationControl({showCompass: false}), "top-left");
  labels = begin("labels", "labels", false);
  const follow = () => { labels.jumpTo({center: scene.getCenter(), zoom: scene.getZoom()}); scaleBar(); };
  scene.on("move", follow); scene.on("load", follow);
  scene.on("click", (event) => (marking === null ? look : mark)(...pixel(event.lngLat)));
  for (const map of [scene, labels]) map.on("error", (event) => say(`a part of the map is missing: ${event.error?.message || event.error}`, true));
  window.maps = {scene, labels};
}

function scaleBar() {
  by("scale").hidden = !state.metres;
  if (!state.metres) return;
  const a = scene.project(place(0, 0)), b = scene.project(place(100, 0));
  const metres = state.metres * 100 / (b.x - a.x) * 120, power = 10 ** Math.floor(Math.log10(metres));
  const round = [5, 2, 1].map((n) => n * power).find((n) => n <= metres);
  by("scale").style.width = `${120 * round / metres}px`;
  by("scale").textContent = round >= 1000 ? `${round / 1000} km` : `${+round.toPrecision(1)} m`;
}

// --- the panel
function show(found) {
  state = found;
  by("title").textContent = document.title = state.title;
  by("ask").hidden = by("save").hidden = !state.asks;
  by("look").hidden = !state.labels;
  const rows = state.legend.map((c) => made("tr", {}, made("td", {}, swatch(c)), made("td", {textContent: c.name}),
    made("td", {className: "number", textContent: c.share === undefined ? "…" : percent(c.share)}),
    made("td", {className: "number", textContent: c.hectares === undefined ? "" : `${c.hectares.toLocaleString(undefined, {maximumSignificantDigits: 4})} ha`})));
  by("legend").tBodies[0].replaceChildren(...rows);
}
const percent = (share) => share && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
function swatch(c) { const e = made("span", {className: "swatch"}); if (c.colour) e.style.background = c.colour; return e; }

function fields() {
  const rows = classes.map((c, n) => {
    const colour = made("input", {type: "color", title: "colour"});
    const words = made("input", {value: said(c), placeholder: "name, or name=word+word", ariaLabel: `words of class ${n + 1}`, title: c.offset ? `${c.offset > 0 ? "+" : ""}${c.offset} is added to its scores` : ""});
    const like = made("button", {type: "button", title: "mark places that show it: click on the map, Esc ends"});
    const away = made("button", {type: "button", textContent: "×", title: "remove", ariaLabel: `remove class ${n + 1}`});
    Object.assign(c, {row: {colour, like}});
    colour.onchange = () => { c.colour = colour.value; ask(); };
    words.onchange = () => { Object.assign(c, read(words.value)); ask(); };
    like.onclick = () => mode(marking === n ? null : n);
    away.onclick = () => { classes.splice(n, 1); marking = null; fields(); mode(null); if (classes.length) ask(); };
    return made("div", {className: "class"}, colour, words, like, away);
  });
  by("classes").replaceChildren(...rows);
  refresh();
}
// What changes in the fields while they may be typed in.
function refresh() {
  classes.forEach((c, n) => {
    c.row.colour.value = c.colour || legendColour(c.name) || "#888888";
    c.row.like.textContent = c.examples.length ? `like ${c.examples.length}` : "like";
    c.row.like.setAttribute("aria-pressed", marking === n);
  });
}
const said = (c) => c.words.length && !(c.words.length === 1 && c.words[0] === c.name) ? `${c.name}=${c.words.join("+")}` : c.name;
function read(text) {
  const [name, right] = text.split("=", 2).map((part) => part.trim());
  return {name, words: right ? right.split("+").map((word) => word.trim()).filter(Boolean) : []};
}
const legendColour = (name) => state.legend.find((c) => c.name === name)?.colour;

function mode(which) { marking = which; document.body.classList.toggle("marking", which !== null); scene.getCanvas().style.cursor = which === null ? "" : "crosshair"; refresh(); }
async function mark(col, row) {
  if (col < 0 || row < 0 || col >= state.width || row >= state.height) return say("this is beside the image", true);
  const examples = classes[marking].examples, at = [col, row];
  examples.push(at); refresh();
  if (await ask()) return;
  examples.splice(examples.indexOf(at), 1); refresh(); // a place that cannot be asked does not block the class
}

let asking = 0;
async function ask() {
  const given = classes.filter((c) => c.name);
  if (!given.length) return true;
  const mine = ++asking, threshold = +by("threshold").value || null;
  const began = performance.now();
  say("asking …");
  try {
    const found = await call("ask", {body: {classes: given.map(({name, words, examples, colour, offset}) => ({name, words, examples, colour, offset})), background: by("background").value.trim() || "auto", threshold}});
    if (mine !== asking) return true;
    show(found); repaint(); refresh();
    say("");
    labels.once("idle", async () => {
      document.body.dataset.painted = (performance.now() - began).toFixed(0);
      const whole = await call("state").catch(() => null); // with what classes cover
      if (whole && mine === asking) show(whole);
    });
  } catch (error) { if (mine === asking) say(error.message, true); return false; }
  return true;
}

async function look(col, row) {
  try {
    const found = await call("at", {more: {col, row}});
    const here = by("here");
    here.hidden = found.col === undefined;
    if (here.hidden) return;
    const rows = (found.words || []).map((w) => { const bar = made("span", {className: "score"}); bar.style.width = `${Math.max(0, w.score) * 10}rem`; return made("tr", {}, made("td", {textContent: w.word}), made("td", {className: "number", textContent: w.score.toFixed(3)}), made("td", {}, bar)); });
    const sure = found.confidence === undefined ? "" : `, confidence ${found.confidence}`;
    here.replaceChildren(made("strong", {textContent: found.class === null ? "no data" : found.class + sure}),
      made("div", {textContent: `${+found.x.toPrecision(10)}, ${+found.y.toPrecision(10)} ${found.crs || ""} (column ${found.col}, row ${found.row})`}), made("table", {}, ...rows));
  } catch (error) { say(error.message, true); }
}

async function save(event) {
  event.preventDefault();
  try { saved(await call("save", {body: {name: by("name").value}})); } catch (error) { say(error.message, true); }
}
let waiting = false;
async function saved(found) {
  const text = found.running ? `writing … ${found.seconds} s` : found.error ? found.error : `written in ${found.seconds} s:\n${found.files.join("\n")}`;
  by("command").hidden = false;
  by("command").textContent = `${found.command}\n\n${text}`;
  by("command").dataset.done = found.done;
  if (!found.running || waiting) return;
  waiting = true; // one at a time
  await new Promise((done) => setTimeout(done, 500));
  waiting = false;
  try { saved(await call("saving")); } catch (error) { say(error.message, true); }
}

// --- how it looks
function opacity() { by("labels").style.opacity = by("opacity").value; }
function swipe() {
  const on = by("swiping").checked, at = by("swipe").value / 10;
  by("swipe").hidden = by("bar").hidden = !on;
  by("labels").style.clipPath = on ? `inset(0 0 0 ${at}%)` : "";
  by("bar").style.left = `calc(${at}% - 1px)`;
}
const toggle = (id) => { by(id).checked = !by(id).checked; by(id).dispatchEvent(new Event("change")); };
function keys(event) {
  if (event.key === "Escape") return mode(null);
  if (event.target.matches("input:not([type=range]):not([type=checkbox])") || event.ctrlKey || event.metaKey || event.altKey) return;
  const does = {s: () => toggle("swiping"), o: () => toggle("outlines"), l: () => { by("labels").hidden = !by("labels").hidden; },
    "/": () => by("classes").querySelector("input:not([type=color])")?.focus()}[event.key.toLowerCase()];
  if (does) { event.preventDefault(); does(); }
}

addEventListener("DOMContentLoaded", async () => {
  try {
    show(await call("state"));
  } catch (error) { return say(error.message, true); }
  classes = state.classes.length ? state.classes.map((c) => ({...c})) : [{name: "", words: [], examples: [], colour: null}];
  by("background").value = state.background;
  by("threshold").value = state.threshold || 0;
  if (state.saving) saved(state.saving);
  start(); fields(); opacity(); swipe();
  say(state.notes.join(" "));
  by("add").onclick = () => { classes.push({name: "", words: [], examples: [], colour: null}); fields(); by("classes").lastChild.querySelector("input:not([type=color])").focus(); };
  by("ask").onsubmit = (event) => { event.preventDefault(); ask(); };
  by("background").onchange = ask;
  by("threshold").oninput = () => { by("threshold-said").textContent = +by("threshold").value ? by("threshold").value : "none"; };
  by("threshold").onchange = ask;
  by("opacity").oninput = opacity;
  by("outlines").onchange = repaint;
  by("swiping").onchange = () => { if (by("swiping").checked && by("swipe").value === "0") by("swipe").value = 500; swipe(); };
  by("swipe").oninput = swipe;
  by("save").onsubmit = save;
  by("fold").onclick = () => { const folded = document.body.classList.toggle("folded"); by("fold").textContent = folded ? "unfold" : "fold"; by("fold").setAttribute("aria-expanded", !folded); };
  addEventListener("keydown", keys);
});
