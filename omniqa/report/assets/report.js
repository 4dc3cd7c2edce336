"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const clip = report.clip;
const byId = (id) => document.getElementById(id);
const SOUND_ROWS = 1;
const DARK = [8, 10, 22, 205], ONLY = [53, 132, 228, 170], OTHER = [214, 64, 159, 170], CLEAR = [0, 0, 0, 0];

for (const run of report.runs) {
  for (const marks of [run.video, run.audio]) {
    for (const name of ["layers", "shade"]) {
      marks[name] = Uint8Array.from(atob(marks[name]), (character) => character.charCodeAt(0));
    }
  }
}

const state = { run: 0, other: null, layer: Number(byId("layer").value), moment: 0 };
const patches = clip.rows * clip.cols;
// Where a moment is enlarged: at a temporal grid, or, of sound alone, at a part of the timeline.
const moments = clip.grids.length ? clip.grids.map((start, number) => ({
  start_s: start, end_s: clip.grids[number + 1] ?? clip.end_s,
})) : report.runs[0].parts.map(({ start_s, end_s }) => ({ start_s, end_s }));

const run = () => report.runs[state.run];

/** The colour over a token: what of it was pruned, or kept by one answer alone; else its attention. */
function colour(kind, token) {
  const marks = run()[kind], kept = marks.layers[token] > state.layer;
  if (state.other !== null) {
    const otherKept = report.runs[state.other][kind].layers[token] > state.layer;
    if (kept !== otherKept) return kept ? ONLY : OTHER;
    return kept ? CLEAR : DARK;
  }
  if (!kept && byId("show-kept").checked) return DARK;
  return byId("show-attention").checked ? [255, 120, 0, Math.round(0.78 * marks.shade[token])] : CLEAR;
}

function paint(canvas, kind, first, width, height) {
  canvas.width = width;
  canvas.height = height;
  if (!width || !height) return;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(width, height);
  for (let token = 0; token < width * height; token += 1) image.data.set(colour(kind, first + token), 4 * token);
  context.putImageData(image, 0, 0);
}

function keptShare(marks, first, count) {
  let kept = 0;
  for (let token = first; token < first + count; token += 1) kept += marks.layers[token] > state.layer;
  return count ? kept / count : 0;
}

function describeLayer() {
  const layer = run().layers[state.layer];
  const told = [["picture", layer.video], ["sound", layer.audio]].filter(([, share]) => share !== null)
    .map(([name, share]) => `${percentText(share)} of ${name}`).join(", ");
  const text = `${state.layer} of 0–${run().layers.length - 1}: computes ${told}`;
  byId("layer-text").textContent = text;
  byId("layer").setAttribute("aria-valuetext", `layer ${text}`);
}

function drawFilm() {
  document.querySelectorAll(".frame").forEach((button, grid) => {
    paint(button.querySelector("canvas"), "video", grid * patches, clip.cols, clip.rows);
    const share = percentText(keptShare(run().video, grid * patches, patches));
    button.querySelector(".share").textContent = `${share} kept`;
    button.setAttribute("aria-label", `Enlarge ${clockText(clip.grids[grid])}, ${share} kept`);
  });
}

function drawSound() {
  if (!byId("mel")) return;
  paint(byId("mel-marks"), "audio", 0, clip.audio_tokens, SOUND_ROWS);
  const covered = clip.audio_tokens * clip.audio_token_s / (clip.end_s - clip.start_s);
  for (const part of [document.querySelector(".mel"), byId("sound-attention")]) part.style.width = `${100 * Math.min(1, covered)}%`;
  const canvas = byId("sound-attention"), context = canvas.getContext("2d"), shades = run().audio.shade;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--sound");
  const wide = canvas.width / shades.length;
  shades.forEach((shade, token) => {
    const high = canvas.height * (shade / 255) ** 2;  // the attention itself, not its root
    context.fillRect(token * wide, canvas.height - high, Math.max(wide, 1), high);
  });
  byId("sound-share").textContent = `${percentText(keptShare(run().audio, 0, clip.audio_tokens))} of the sound's tokens are kept at this layer.`;
}

function draw() {
  describeLayer();
  drawFilm();
  drawSound();
  document.querySelectorAll("line.cursor").forEach((line) => {
    const x = 44 + state.layer * Number(line.dataset.step);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  });
  if (byId("moment").open) drawMoment();
}

function choose(number) {
  state.run = number;
  document.querySelectorAll(".run").forEach((section) => { section.hidden = Number(section.dataset.run) !== number; });
  drawTimeline(byId("timeline"), run().parts, clip, (part) => open(momentIn(part)), run().spans);
  draw();
}

/** The moment of a part of the clip: of several, the one to whose picture the question drew most attention. */
function momentIn({ start_s, end_s }) {
  const inside = moments.map((_, number) => number)
    .filter((number) => moments[number].start_s < end_s && moments[number].end_s > start_s);
  if (!clip.grids.length || !inside.length) return inside[0] ?? momentAt(start_s);
  const drawn = (grid) => run().video.shade.subarray(grid * patches, (grid + 1) * patches)
    .reduce((sum, shade) => sum + shade * shade, 0);
  const within = inside.filter((number) => moments[number].start_s >= start_s - 1e-6);
  return (within.length ? within : inside).reduce((best, grid) => (drawn(grid) > drawn(best) ? grid : best));
}

function momentAt(seconds) {
  const found = moments.findLastIndex((moment) => moment.start_s <= seconds);
  return Math.max(0, found);
}

function open(number) {
  state.moment = number;
  drawMoment();
  seek(moments[number].start_s, false);
  if (!byId("moment").open) byId("moment").showModal();
}

function drawMoment() {
  const moment = moments[state.moment];
  byId("moment-title").textContent = `${clockText(moment.start_s)} to ${clockText(moment.end_s)}`;
  byId("before").disabled = state.moment === 0;
  byId("after").disabled = state.moment === moments.length - 1;
  byId("large").replaceChildren(...(clip.grids.length ? [0, 1].map(large) : []));
  drawExcerpt(moment);
  const [first, count] = soundOf(moment);
  const told = [];
  if (clip.grids.length) told.push(`${percentText(keptShare(run().video, state.moment * patches, patches))} of the picture`);
  if (count) told.push(`${percentText(keptShare(run().audio, first, count))} of the sound`);
  byId("moment-text").textContent = `Layer ${state.layer} computes ${told.join(" and ") || "nothing"} of this moment.`;
}

function large(which) {
  const picture = document.createElement("span"), image = new Image(), canvas = document.createElement("canvas");
  picture.className = "still";
  image.src = which ? report.second[state.moment] : document.querySelectorAll(".frame img")[state.moment].src;
  image.alt = `${which ? "Second" : "First"} frame at ${clockText(moments[state.moment].start_s)}`;
  paint(canvas, "video", state.moment * patches, clip.cols, clip.rows);
  picture.append(image, canvas);
  return picture;
}

/** First token and number of the sound's tokens of a moment. */
function soundOf(moment) {
  const at = (seconds) => Math.round((seconds - clip.start_s) / clip.audio_token_s);
  const first = Math.min(clip.audio_tokens, Math.max(0, at(moment.start_s)));
  return [first, Math.max(0, Math.min(clip.audio_tokens, at(moment.end_s)) - first)];
}

function drawExcerpt(moment) {
  const host = byId("excerpt"), [first, count] = soundOf(moment);
  if (!host) return;
  host.replaceChildren();
  if (!count) return;
  const image = new Image(), canvas = document.createElement("canvas");
  image.src = byId("mel").src;
  image.alt = `Log-mel of ${clockText(moment.start_s)} to ${clockText(moment.end_s)}`;
  image.style.width = `${100 * clip.audio_tokens / count}%`;
  image.style.left = `${-100 * first / count}%`;
  paint(canvas, "audio", first, count, SOUND_ROWS);
  host.append(image, canvas);
}

function seek(seconds, play) {
  const player = byId("player");
  if (!player) return false;
  player.currentTime = seconds;
  if (play) player.play().catch(() => {});  // a browser may want a click on the player itself first
  return true;
}

byId("layer").addEventListener("input", (event) => { state.layer = Number(event.target.value); draw(); });
for (const name of ["show-kept", "show-attention"]) byId(name).addEventListener("change", draw);
document.querySelectorAll('input[name="run"]').forEach((input) => {
  input.addEventListener("change", () => choose(Number(input.value)));
});
byId("other")?.addEventListener("change", (event) => {
  state.other = event.target.value === "" ? null : Number(event.target.value);
  byId("compare-key").hidden = state.other === null;
  draw();
});
document.querySelectorAll(".frame").forEach((button) => {
  button.addEventListener("click", () => open(Number(button.dataset.moment)));
});
document.querySelectorAll(".jump").forEach((button) => {
  button.addEventListener("click", () => {
    const seconds = Number(button.dataset.start);
    if (!seek(seconds, true)) open(momentIn({ start_s: seconds, end_s: seconds + 1e-3 }));
  });
});
byId("sound")?.addEventListener("click", (event) => {
  const box = byId("mel").getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  open(momentAt(clip.start_s + share * clip.audio_tokens * clip.audio_token_s));
});
byId("before").addEventListener("click", () => open(state.moment - 1));
byId("after").addEventListener("click", () => open(state.moment + 1));
byId("close").addEventListener("click", () => byId("moment").close());
byId("moment").addEventListener("keydown", (event) => {
  const to = state.moment + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0);
  if (to !== state.moment && moments[to]) { event.preventDefault(); open(to); }
});
byId("moment").addEventListener("click", (event) => { if (event.target === byId("moment")) byId("moment").close(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
if (byId("film")) rove(byId("film"));
choose(Number(document.querySelector('input[name="run"]:checked')?.value ?? 0));
