// The box: GPUs with owners, memory and health, and what has happened.

import { attribute, h, keyed, text } from "./dom.js";
import { bytes } from "./format.js";

const MOST_EVENTS = 400;

export class Devices {
  constructor(parent, box, { open }) {
    Object.assign(this, { parent, box, open });
  }

  render(devices, inventory) {
    const silent = inventory.state === "none" && !devices.length;
    attribute(this.box, "hidden", silent ? "" : null);
    if (silent) return;
    attribute(this.parent, "data-trouble", inventory.state === "unreachable" ? inventory.reason : null);
    keyed(this.parent, devices, (device) => device.uuid, (device) => this.card(device.uuid), update);
  }

  card(uuid) {
    const card = h("button", { class: "device", "data-nav": true, onclick: () => this.open({ device: uuid }) },
      h("span", { class: "index mono" }), h("span", { class: "label" }), h("span", { class: "health" }),
      h("span", { class: "owners mono" }),
      h("span", { class: "bars" }, h("span", { class: "bar memory" }, h("i")), h("span", { class: "bar busy" }, h("i"))));
    return card;
  }
}

function update(card, device) {
  const [index, label, health, owners, bars] = card.children;
  const [memory, busy] = bars.children;
  text(index, device.index);
  const used = device.memory_total ? `${bytes(device.memory_used)} of ${bytes(device.memory_total)}` : "";
  text(label, device.name.replace(/^NVIDIA /, ""));
  text(health, device.withheld ? "held back" : device.health);
  attribute(card, "data-health", device.health);
  bar(memory, device.memory_total ? device.memory_used / device.memory_total : 0);
  bar(busy, device.utilization ?? 0);
  const held = (device.reservations ?? []).map((owner) => owner.share >= 1 ? owner.replica : `${owner.replica} ${owner.share}`);
  const why = device.health === "healthy" ? "" : device.health_reason;
  text(owners, [...held, why].filter(Boolean).join(" · ") || "free");
  attribute(owners, "data-free", held.length || why ? null : "yes");
  const busyWords = device.utilization == null ? "" : `, ${Math.round(device.utilization * 100)}% busy`;
  attribute(card, "title", `${device.uuid}\n${used}${busyWords}\n${device.health_reason || device.withheld || device.health}`);
  attribute(card, "aria-label", `GPU ${device.index}, ${device.name}, ${device.health}, ${used}${busyWords}, ${held.join(", ") || "free"}`);
}

function bar(element, part) {
  element.firstElementChild.style.inlineSize = `${Math.round(Math.min(1, part) * 100)}%`;
}

export class Events {
  constructor(parent, { open }) {
    Object.assign(this, { parent, open });
    this.seen = new Set();
  }

  clear() {
    this.parent.replaceChildren();
    this.seen.clear();
  }

  add(events) {
    const fresh = events.filter((event) => !this.seen.has(event.id) && this.news(event));
    if (!fresh.length) return;
    for (const event of fresh) {
      this.seen.add(event.id);
      this.parent.prepend(this.line(event));
    }
    while (this.parent.children.length > MOST_EVENTS) {
      this.seen.delete(this.parent.lastElementChild.dataset.id);
      this.parent.lastElementChild.remove();
    }
  }

  // Readings of the devices come often and mostly say the same.
  news(event) {
    if (event.type !== "InventoryChanged") return true;
    const again = event.message === this.devices;
    this.devices = event.message;
    return !again;
  }

  line(event) {
    const to = event.replica ? { replica: event.replica } : event.service ? { service: event.service } : null;
    const time = new Date(event.time).toLocaleTimeString([], { hour12: false });
    return h("li", { "data-severity": event.severity, "data-id": event.id },
      h("time", { class: "mono", datetime: event.time, title: event.time }, time),
      to ? h("button", { class: "link", onclick: () => this.open(to) }, event.message) : h("span", {}, event.message));
  }
}
