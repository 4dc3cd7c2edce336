"use strict";

// What the page holds: the clip, what was said about it, and the answer that is on its way.
const state = { clip: null, turns: [], running: null, key: sessionStorage.getItem("key") || "" };
const at = (id) => document.getElementById(id);
const STAGES = {
  cache: "looking for the clip", decode: "decoding the clip", vision_encoder: "looking at it",
  audio_encoder: "listening to it", prefill: "reading the question",
};

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (state.key) headers.authorization = `Bearer ${state.key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server can't be reached.");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Refused(response.status, told?.error?.message || `The server says ${response.status}.`);
}

function show(error) {
  if (error.name === "AbortError") return;
  at("error").textContent = error.message;
  if (error.status === 401) at("key-form").hidden = false;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

async function connect() {
  try {
    const models = await (await call("/v1/models")).json();
    at("model").textContent = models.data[0].id;
    at("key-form").hidden = true;
    const listed = await (await call("/v1/media")).json();
    at("listed").replaceChildren(new Option("…", ""), ...listed.data.map((file) => new Option(file.path, file.path)));
    at("root").hidden = listed.data.length === 0;
    at("error").textContent = "";
  } catch (error) {
    at("model").textContent = "not connected";
    show(error);
  }
}

// --- the clip ---

function take(clip) {
  stop();
  if (state.clip?.source.startsWith("blob:")) URL.revokeObjectURL(state.clip.source);
  state.clip = clip;
  reset();
  at("clip-name").textContent = clip.name;
  at("player").src = clip.source;
  at("player").hidden = false;
  update();
}

async function upload(file) {
  at("error").textContent = "";
  at("clip-name").textContent = `uploading ${file.name} …`;
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", file);
  try {
    const stored = await (await call("/v1/files", { method: "POST", body: form })).json();
    take({ url: stored.id, name: file.name, source: URL.createObjectURL(file) });
  } catch (error) {
    at("clip-name").textContent = state.clip?.name || "";
    show(error);
  }
}

async function choose(path) {
  at("error").textContent = "";
  const address = `/v1/media/${path.split("/").map(encodeURIComponent).join("/")}`;
  try {
    // A player sends no key, so that the clip is fetched for it.
    const source = state.key ? URL.createObjectURL(await (await call(address)).blob()) : address;
    take({ url: path, name: path, source });
  } catch (error) {
    show(error);
  }
}

// --- questions ---

function messages(question) {
  const clip = { type: "video_url", video_url: { url: state.clip.url } };
  const texts = [...state.turns.flatMap((turn) => [turn.question, turn.answer]), question];
  return texts.map((text, number) => ({
    role: number % 2 ? "assistant" : "user",
    content: number ? text : [clip, { type: "text", text }],
  }));
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const pieces = (waiting + value).split("\n\n");
    waiting = pieces.pop();
    for (const piece of pieces) {
      const lines = piece.split("\n");
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data && data !== "[DONE]") yield { kind: lines[0].startsWith("event: ") ? lines[0].slice(7) : "", ...JSON.parse(data) };
    }
  }
}

async function ask(question) {
  const running = (state.running = new AbortController());
  const item = element("li", "");
  const answer = element("p", "", "answer");
  item.append(element("p", question, "question"), answer);
  at("turns").append(item);
  at("error").textContent = "";
  at("working").textContent = "waiting …";
  update();
  const body = { model: "omniqa", stream: true, progress: true, messages: messages(question) };
  if (at("retention").value) body.retention = Number(at("retention").value);
  try {
    const headers = { "content-type": "application/json" };
    const options = { method: "POST", headers, body: JSON.stringify(body), signal: running.signal };
    let details = null;
    let id = null;
    for await (const event of events(await call("/v1/chat/completions", options))) {
      if (event.error) throw new Refused(0, event.error.message);
      if (event.kind === "progress") {
        at("working").textContent = `${STAGES[event.stage] || event.stage} … ${Math.round(100 * event.share)} %`;
      } else {
        const piece = event.choices?.[0]?.delta?.content;
        if (piece) {
          at("working").textContent = "";
          answer.textContent += piece;
        }
        details = event.omniqa || details;
        id = event.id;
      }
    }
    if (!details) throw new Refused(0, "The answer broke off.");
    const turn = { id, question, answer: answer.textContent, details };
    state.turns.push(turn);
    item.append(facts(turn));
    look(turn);
  } catch (error) {
    item.remove();
    at("question").value ||= question;
    show(error);
  } finally {
    state.running = state.running === running ? null : state.running;
    at("working").textContent = "";
    update();
  }
}

function facts(turn) {
  const { timing_s: timing, retention, evidence } = turn.details;
  const line = element("p", `${timing.total.toFixed(2)} s · kept ${Math.round(100 * retention.achieved)} % `, "facts");
  if (evidence.length) {
    const button = element("button", "where it looked");
    button.type = "button";
    button.addEventListener("click", () => look(turn));
    line.append("· ", button);
  }
  return line;
}

// --- the timeline ---

function look(turn) {
  const { evidence, media } = turn.details;
  const parts = [...evidence].sort((one, other) => one.start_s - other.start_s);
  const end = Math.max(media.duration_s, at("player").duration || 0, ...parts.map((part) => part.end_s));
  at("looked").hidden = parts.length === 0;
  at("timeline-end").textContent = clockText(end);
  drawTimeline(at("timeline"), parts, { start_s: 0, end_s: end }, (part) => seek(part.start_s));
}

function seek(seconds) {
  const player = at("player");
  player.currentTime = seconds;
  player.play().catch(() => {});
}

// --- controls ---

function stop() {
  state.running?.abort();
}

function reset() {
  state.turns = [];
  at("turns").replaceChildren();
  at("looked").hidden = true;
  at("error").textContent = "";
  update();
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function save() {
  const content = JSON.stringify({ clip: state.clip.name, turns: state.turns }, null, 2);
  download(new Blob([content], { type: "application/json" }), "conversation.json");
}

async function report() {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ completions: state.turns.map((turn) => turn.id) });
  at("error").textContent = "";
  at("working").textContent = "making the report …";
  try {
    download(await (await call("/v1/reports", { method: "POST", headers, body })).blob(), "report.html");
  } catch (error) {
    show(error);
  } finally {
    at("working").textContent = "";
  }
}

function update() {
  const busy = state.running !== null;
  at("send").disabled = busy || !state.clip;
  at("send").hidden = busy;
  at("stop").hidden = !busy;
  at("reset").disabled = at("save").disabled = at("report").disabled = busy || state.turns.length === 0;
}

function submit(event) {
  event.preventDefault();
  const question = at("question").value.trim();
  if (!question || !state.clip || state.running) return;
  at("question").value = "";
  ask(question);
}

at("ask").addEventListener("submit", submit);
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
});
at("stop").addEventListener("click", stop);
at("reset").addEventListener("click", reset);
at("save").addEventListener("click", save);
at("report").addEventListener("click", report);
at("file").addEventListener("change", (event) => event.target.files[0] && upload(event.target.files[0]));
at("listed").addEventListener("change", (event) => event.target.value && choose(event.target.value));
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = at("key").value.trim();
  sessionStorage.setItem("key", state.key);
  connect();
});
at("player").addEventListener("error", () => {
  if (!state.clip) return;
  at("player").hidden = true;
  at("clip-name").textContent = `${state.clip.name} (this browser can't play it; omniqa may still read it)`;
});
for (const name of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
  });
}
connect();
