// One picture per service: load above (in workers, waiting), replicas below (ready, wanted), over one time axis.

import { clock, count, milliseconds } from "./format.js";

const LEFT = 30;
const RIGHT = 6;
const GAP = 12;
const AXIS = 14;
const LOAD_WORDS = [["in flight", "flight"], ["waiting", "queue"]];
const LEVEL_WORDS = [["ready", "ready"], ["wanted", "target"]];

let colours = null;

export function forgetColours() {
  colours = null;
}

function palette() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(
      ["grid", "mild", "flight", "flight-soft", "queue", "ready", "ready-soft", "target", "text"]
        .map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
    );
  }
  return colours;
}

// Draws into `canvas`; `at` is the time under the pointer, null where there is none.
export function draw(canvas, { load, levels }, { now, seconds, at }) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "10px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
  const start = now - seconds;
  const across = (t) => LEFT + ((t - start) / seconds) * (width - LEFT - RIGHT);
  const strip = Math.round((height - AXIS - GAP) * 0.66);
  const frame = { pen, across, start, now, left: LEFT, right: width - RIGHT };
  const first = firstIndex(load.t, start);
  const top = scale(Math.max(1, ...sums(load, first)));
  grid(frame, 4, strip, top, LOAD_WORDS);
  stacked(frame, load, first, 4, strip, top);
  const begin = Math.max(0, firstIndex(levels.t, start) - 1);
  const most = scale(Math.max(1, ...levels.target.slice(begin), ...levels.replicas.slice(begin)));
  grid(frame, strip + GAP, height - AXIS, most, LEVEL_WORDS);
  steps(frame, levels, begin, strip + GAP, height - AXIS, most);
  times(frame, height, seconds);
  if (at != null) mark(frame, at, 4, height - AXIS);
}

function firstIndex(t, start) {
  let low = 0;
  let high = t.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (t[middle] < start) low = middle + 1;
    else high = middle;
  }
  return low;
}

function* sums(load, first) {
  for (let i = first; i < load.t.length; i += 1) yield load.in_flight[i] + load.queued[i];
}

// The smallest round number that holds the value.
function scale(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 3, 4, 5, 6, 8, 10]) if (value <= step * power * 1.0001) return step * power;
  return 10 * power;
}

function grid({ pen, left, right }, top, bottom, most, what) {
  const c = palette();
  pen.strokeStyle = c.grid;
  pen.fillStyle = c.mild;
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const [y, value] of [[top, most], [bottom, 0]]) {
    pen.beginPath();
    pen.moveTo(left, Math.round(y) + 0.5);
    pen.lineTo(right, Math.round(y) + 0.5);
    pen.stroke();
    pen.fillText(count(value), left - 5, Math.min(bottom - 4, Math.max(top + 4, y)));
  }
  pen.textAlign = "left";
  pen.textBaseline = "top";
  let x = left + 4;
  for (const [word, colour] of what) {
    pen.fillStyle = c[colour];
    pen.fillText(word, x, top + 3);
    x += pen.measureText(word).width + 8;
  }
}

// Stretches that touch are one area; what waits stands upon what is in flight.
function stacked({ pen, across, left }, load, first, top, bottom, most) {
  const c = palette();
  const y = (value) => bottom - (value / most) * (bottom - top);
  const area = new Path2D();
  const edge = new Path2D();
  const queue = new Path2D();
  let end = null;
  for (let i = first; i < load.t.length; i += 1) {
    if (!load.s[i]) continue;
    const from = Math.max(left, across(load.t[i] - load.s[i]));
    const to = Math.max(left, across(load.t[i]));
    const height = y(load.in_flight[i]);
    if (end == null || from - end > 1.5) {
      if (end != null) area.lineTo(end, bottom);
      area.moveTo(from, bottom);
      edge.moveTo(from, bottom);
    }
    area.lineTo(from, height);
    area.lineTo(to, height);
    edge.lineTo(from, height);
    edge.lineTo(to, height);
    if (load.queued[i]) {
      const upper = y(load.in_flight[i] + load.queued[i]);
      queue.rect(from, upper, Math.max(1, to - from), height - upper);
    }
    end = to;
  }
  if (end != null) area.lineTo(end, bottom);
  pen.lineWidth = 1.3;
  pen.lineJoin = "round";
  pen.fillStyle = c["flight-soft"];
  pen.fill(area);
  pen.fillStyle = c.queue;
  pen.fill(queue);
  pen.strokeStyle = c.flight;
  pen.stroke(edge);
}

function steps({ pen, across, left, right }, levels, begin, top, bottom, most) {
  const c = palette();
  const y = (value) => bottom - (value / most) * (bottom - top - 1);
  // The line of `values`, going on from where `path` is.
  const walk = (values, path) => {
    for (let i = begin; i < levels.t.length; i += 1) {
      const from = Math.max(left, across(levels.t[i]));
      const to = i + 1 < levels.t.length ? Math.max(left, across(levels.t[i + 1])) : right;
      path.lineTo(from, y(values[i]));
      path.lineTo(to, y(values[i]));
    }
    return path;
  };
  if (begin >= levels.t.length) return;
  const area = new Path2D();
  area.moveTo(Math.max(left, across(levels.t[begin])), bottom);
  walk(levels.ready, area);
  area.lineTo(right, bottom);
  pen.fillStyle = c["ready-soft"];
  pen.fill(area);
  pen.lineWidth = 1.5;
  pen.strokeStyle = c.ready;
  pen.stroke(walk(levels.ready, new Path2D()));
  pen.setLineDash([4, 3]);
  pen.strokeStyle = c.target;
  pen.stroke(walk(levels.target, new Path2D()));
  pen.setLineDash([]);
}

function times({ pen, across, start, now, left, right }, height, seconds) {
  const c = palette();
  const step = seconds <= 300 ? 60 : seconds <= 900 ? 180 : 600;
  pen.fillStyle = c.mild;
  pen.textBaseline = "bottom";
  pen.textAlign = "center";
  for (let back = 0; back <= seconds; back += step) {
    const x = across(now - back);
    if (x < left + 12 || x > right - 12) continue;
    pen.fillText(`−${back / 60}m`, x, height);
  }
  pen.textAlign = "right";
  pen.fillText("now", right, height);
}

function mark({ pen, across, left, right }, at, top, bottom) {
  const x = Math.round(Math.min(right, Math.max(left, across(at)))) + 0.5;
  pen.strokeStyle = palette().text;
  pen.globalAlpha = 0.4;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x, top);
  pen.lineTo(x, bottom);
  pen.stroke();
  pen.globalAlpha = 1;
}

export function timeAt(canvas, x, { now, seconds }) {
  const width = canvas.clientWidth - LEFT - RIGHT;
  return now - seconds + (Math.min(width, Math.max(0, x - LEFT)) / width) * seconds;
}

// What a picture shows at that time, in words.
export function reading({ load, levels }, at) {
  let i = firstIndex(load.t, at);
  const inside = i < load.t.length && load.t[i] - load.s[i] <= at + 0.5;
  const level = firstIndex(levels.t, at + 1e-6) - 1;
  const words = [clock(at)];
  if (inside) {
    words.push(`${count(load.in_flight[i])} in flight`, `${count(load.queued[i])} waiting`, `${count(load.rps[i])}/s`);
    if (load.p99[i] != null) words.push(`p99 ${milliseconds(load.p99[i])}`);
  }
  if (level >= 0) words.push(`${levels.ready[level]} ready of ${levels.target[level]} wanted`);
  return words.join(" · ");
}
