"use strict";

/**
 * A timeline of evidence: a column for each part of the clip, its picture's share above its sound's.
 * One stop of the Tab key: the arrow keys go on from there.
 *
 * host: the element that it fills, of the class "timeline".
 * parts: {start_s, end_s, video, audio}, in the order of time; any scale.
 * range: {start_s, end_s} of the clip.
 * onPick: called with a part that is chosen.
 * spans: {start_s, end_s} whose parts are underlined; may be left out.
 */
function drawTimeline(host, parts, range, onPick, spans = []) {
  const length = range.end_s - range.start_s || 1;
  const highest = Math.max(...parts.map((part) => part.video + part.audio), 1e-9);
  host.replaceChildren(...parts.map((part) => {
    const button = document.createElement("button");
    button.type = "button";
    button.style.left = `${100 * (part.start_s - range.start_s) / length}%`;
    button.style.width = `${100 * (part.end_s - part.start_s) / length}%`;
    for (const [kind, share] of [["picture", part.video], ["sound", part.audio]]) {
      const bar = document.createElement("span");
      bar.className = kind;
      bar.style.height = `${100 * share / highest}%`;
      button.append(bar);
    }
    const touches = (span) => part.start_s < span.end_s && span.start_s < part.end_s;
    const named = spans.some(touches);
    if (named) button.classList.add("named");
    const told = `${clockText(part.start_s)} to ${clockText(part.end_s)}: picture ${percentText(part.video)}, ` +
      `sound ${percentText(part.audio)}${named ? ", evidence" : ""}`;
    button.setAttribute("aria-label", told);
    button.title = told;
    button.addEventListener("click", () => onPick(part));
    return button;
  }));
  rove(host);
}

/** Make an element's buttons one stop of the Tab key, with arrow keys, Home and End between them. */
function rove(host) {
  const buttons = [...host.querySelectorAll("button")];
  buttons.forEach((button, number) => { button.tabIndex = number ? -1 : 0; });
  host.onkeydown = (event) => {
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons[at].tabIndex = -1;
    buttons[to].tabIndex = 0;
    buttons[to].focus();
  };
}

/** A time on the file's clock: "4.5 s", or from a minute on "1:04.5". */
function clockText(seconds) {
  const tenths = Math.round(10 * seconds);
  if (tenths < 600) return `${tenths / 10} s`;
  const hours = Math.floor(tenths / 36000), minutes = Math.floor(tenths / 600) % 60, rest = (tenths % 600) / 10;
  const padded = rest < 10 ? `0${rest}` : `${rest}`;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${minutes}:${padded}`;
}

function percentText(share) {
  return `${Math.round(100 * share)} %`;
}
