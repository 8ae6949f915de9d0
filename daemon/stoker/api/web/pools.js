// The services: a card each, with replicas as cells, the picture of load and target, figures and controls.

import { attribute, h, keyed, text } from "./dom.js";
import { count, duration, keyOf, milliseconds } from "./format.js";
import { draw, reading, timeAt } from "./plot.js";

const DOTS = 24;

export class Pools {
  constructor(parent, { history, view, act, open }) {
    Object.assign(this, { parent, history, view, act, open });
  }

  render(services, devices) {
    this.parent.querySelector(":scope > .empty")?.remove();
    const indexes = new Map(devices.map((device) => [device.uuid, device.index]));
    const several = new Set(services.map((service) => service.deployment)).size > 1;
    const shown = services.filter((service) => keyOf(service).toLowerCase().includes(this.view.filter));
    keyed(this.parent, shown, keyOf, (service) => this.card(service), (card, service) => {
      card.parts.service = service;
      this.update(card, service, indexes, several);
    });
    attribute(this.parent, "data-many", shown.length > 8 ? "yes" : null);
    if (!shown.length) {
      this.parent.append(h("p", { class: "empty" }, services.length ? "No service has that in its name."
        : "No services yet. Write one into the file and save it, and it is started; stoker init writes a first file."));
    }
  }

  // Pictures and ages move with time alone.
  tick() {
    for (const card of this.parent.keyedChildren?.values() ?? []) {
      this.picture(card);
      for (const cell of card.parts.cells.children) age(cell, this.view.now());
    }
  }

  card(service) {
    const key = keyOf(service);
    const say = (path, body, words) => this.act(path, { service: key, ...body }, words);
    const parts = {
      title: h("button", { class: "name", "data-nav": true, title: "Why it is as it is", onclick: () => this.open({ service: key }) }),
      badge: h("span", { class: "badge" }),
      bounds: h("span", { class: "bounds mono", title: "Bounds: least and most replicas" }),
      less: h("button", { class: "square operates", title: "One replica less at most", "aria-label": `Fewer replicas of ${key}` }, "−"),
      more: h("button", { class: "square operates", title: "One replica more at most", "aria-label": `More replicas of ${key}` }, "+"),
      hold: h("button", { class: "small operates" }),
      restart: h("button", { class: "small operates", title: "New workers, one after the other" }, "Restart"),
      cells: h("div", { class: "cells" }),
      queue: h("div", { class: "queue", title: "Requests that wait" }),
      canvas: h("canvas", { role: "img", "aria-label": `Load and replicas of ${key} over time` }),
      reading: h("p", { class: "reading mono" }),
      figures: h("dl", { class: "figures" }),
      reason: h("p", { class: "reason" }),
      trouble: h("button", { class: "reason trouble link", onclick: () => this.open({ replica: parts.trouble.replica }) }),
      rejected: h("p", { class: "reason rejected" }),
      url: h("a", { class: "mono url", target: "_blank", rel: "noreferrer noopener" }),
      at: null,
    };
    const bounds = (change) => {
      const { min_replicas: low, max_replicas: high } = parts.service;
      const most = Math.max(0, high + change);
      say("/v1/scale", { min_replicas: Math.min(low, most), max_replicas: most }, `${key}: ${Math.min(low, most)}..${most}`);
    };
    parts.less.addEventListener("click", () => bounds(-1));
    parts.more.addEventListener("click", () => bounds(+1));
    parts.hold.addEventListener("click", () =>
      parts.service.held ? say("/v1/start", {}, `${key} released`) : sure(parts.hold, () => say("/v1/stop", {}, `${key} held at zero`)));
    parts.restart.addEventListener("click", () => sure(parts.restart, () => say("/v1/restart", {}, `${key} restarts`)));
    const card = h("article", { class: "pool", "aria-label": key },
      h("header", {}, parts.title, parts.badge, h("span", { class: "acts" },
        h("span", { class: "scale" }, parts.less, parts.bounds, parts.more), parts.hold, parts.restart)),
      h("div", { class: "live" }, parts.cells, parts.queue), parts.trouble,
      h("figure", {}, parts.canvas, parts.reading),
      parts.figures, parts.rejected, parts.reason, parts.url);
    card.parts = parts;
    parts.canvas.addEventListener("pointermove", (event) => {
      parts.at = event.offsetX;
      this.picture(card);
    });
    parts.canvas.addEventListener("pointerleave", () => {
      parts.at = null;
      this.picture(card);
    });
    return card;
  }

  update(card, service, indexes, several) {
    const { parts } = card;
    text(parts.title, several ? keyOf(service) : service.name);
    const [word, kind] = standing(service);
    text(parts.badge, word);
    attribute(parts.badge, "data-kind", kind);
    const { min_replicas: low, max_replicas: high } = service;
    text(parts.bounds, low === high ? `${low}` : `${low}..${high}`);
    parts.less.disabled = parts.more.disabled = parts.hold.disabled = parts.restart.disabled = service.removed;
    if (!parts.hold.dataset.sure) text(parts.hold, service.held ? "Start" : "Stop");
    attribute(parts.hold, "title", service.held ? "Release it" : "Hold it at zero replicas");
    keyed(parts.cells, service.replicas, (replica) => replica.id, (replica) => this.cell(replica.id),
      (cell, replica) => show(cell, replica, indexes, this.view.now()));
    attribute(parts.cells, "data-empty", service.replicas.length ? null : "no replicas");
    waiting(parts.queue, service.load.queued);
    figures(parts.figures, service.load);
    troubled(parts.trouble, service.replicas);
    text(parts.reason, service.decision.reason);
    text(parts.rejected, service.rejected?.message ?? "");
    attribute(parts.url, "href", service.url || null);
    text(parts.url, service.url);
  }

  cell(id) {
    const cell = h("button", { class: "cell", "data-nav": true, onclick: () => this.open({ replica: id }) },
      h("span", { class: "mono slot" }), h("span", { class: "mono age" }));
    return cell;
  }

  picture(card) {
    const { canvas, service, at } = card.parts;
    const past = this.history.of(keyOf(service));
    const frame = { now: this.view.now(), seconds: this.view.seconds };
    const time = at == null ? null : timeAt(canvas, at, frame);
    draw(canvas, past, { ...frame, at: time });
    text(card.parts.reading, time == null ? "" : reading(past, time));
  }
}

function standing(service) {
  if (service.removed) return ["removed", "off"];
  if (service.held) return ["stopped", "off"];
  const { ready, target } = service;
  if (!target && !ready) return ["at zero", "off"];
  return [`${ready} of ${target} ready`, ready >= target ? "good" : ready ? "busy" : "bad"];
}

function show(cell, replica, indexes, now) {
  cell.replica = replica;
  attribute(cell, "data-phase", replica.phase);
  attribute(cell, "data-leaving", replica.leaving ? "yes" : null);
  const devices = ranges(replica.devices.map((uuid) => indexes.get(uuid) ?? "?"));
  const [device] = cell.children;
  text(device, devices ? `▪${devices}` : "");
  age(cell, now);
}

// 0,1,2,5 is 0-2,5: eight GPUs have to fit into a cell.
function ranges(numbers) {
  const runs = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([first, last]) => (first === last ? first : `${first}${last === first + 1 ? "," : "-"}${last}`)).join(",");
}

function age(cell, now) {
  const { replica } = cell;
  const since = duration(now - replica.since);
  text(cell.children[1], since.split(" ")[0]);
  const where = replica.devices.length ? `, GPU ${cell.children[0].textContent.slice(1)}` : "";
  const words = `${replica.id}: ${replica.phase} for ${since}${where}${replica.reason ? ` — ${replica.reason}` : ""}`;
  attribute(cell, "title", words);
  attribute(cell, "aria-label", words);
}

// What keeps replicas from serving, in words on the card itself: at night nobody should have to look for it.
function troubled(line, replicas) {
  const [first, ...more] = hindered(replicas);
  line.replica = first?.id;
  attribute(line, "hidden", first ? null : "");
  text(line, first ? `${first.id} ${first.phase}: ${first.reason}${more.length ? ` (and ${more.length} more)` : ""}` : "");
}

export function hindered(replicas) {
  return replicas.filter((one) => one.reason && !one.leaving && (one.phase === "unready" || one.phase === "lost"
    || (one.phase === "pending" && !["it is wanted", ""].includes(one.reason)) || (one.phase === "starting" && one.restarts)));
}

function waiting(queue, number) {
  attribute(queue, "hidden", number ? null : "");
  const dots = Math.min(number, DOTS);
  while (queue.children.length > dots + 1) queue.lastElementChild.remove();
  while (queue.children.length < dots + 1) queue.append(h(queue.children.length ? "i" : "b"));
  text(queue.firstElementChild, `${count(number)} waiting`);
}

function figures(list, load) {
  const rows = [
    ["in flight", count(load.in_flight)], ["waiting", count(load.queued)], ["per second", count(load.rps)],
    ["p50", milliseconds(load.p50_ms)], ["p99", milliseconds(load.p99_ms)],
  ];
  keyed(list, rows, ([name]) => name, ([name]) => h("div", {}, h("dd", { class: "mono" }), h("dt", {}, name)),
    (row, [, value]) => text(row.firstElementChild, value));
}

// Asks again on the button itself: a second press within three seconds means it.
export function sure(button, action) {
  if (button.dataset.sure) {
    clearTimeout(Number(button.dataset.sure));
    button.reset();
    action();
    return;
  }
  const words = button.textContent;
  button.reset = () => {
    delete button.dataset.sure;
    button.textContent = words;
  };
  button.dataset.sure = String(setTimeout(() => button.reset(), 3000));
  button.textContent = "Sure?";
}
