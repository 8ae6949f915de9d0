// The answer to "why": explain and story of a service, a replica or a device, opened by a click.

import { facts, h } from "./dom.js";
import { bytes, clock, count, duration, milliseconds } from "./format.js";
import { sure } from "./pools.js";
import { ask } from "./stream.js";

const LINES = 200;
const FACTS = { target: "one replica bears", window: "seconds looked at", recommended: "the policy says" };

export class Panel {
  constructor(element, { state, act }) {
    Object.assign(this, { element, state, act });
    this.what = null;
    this.back = null;
    this.turn = 0;
  }

  async open(what, tab = "why") {
    if (!this.what) this.back = document.activeElement;
    this.what = what;
    const turn = (this.turn += 1);
    const name = what.replica ?? what.service ?? `GPU ${this.device()?.index ?? ""}`;
    const body = h("div", { class: "body" }, h("p", { class: "mild" }, "…"));
    const tabs = what.replica ? [["why", "Why"], ["story", "Story"], ["logs", "Output"]]
      : what.service ? [["why", "Why"], ["logs", "Output"]] : [];
    this.element.replaceChildren(
      h("header", {}, h("h2", { id: "panel-title", tabindex: "-1" }, name),
        h("button", { class: "plain", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.close() }, "✕")),
      h("div", { class: "segments tabs", role: "tablist" }, tabs.map(([id, label]) =>
        h("button", { role: "tab", "aria-selected": String(id === tab), onclick: () => this.open(what, id) }, label))),
      body);
    this.element.hidden = false;
    this.element.querySelector("h2").focus();
    try {
      const content = await this.content(what, tab);
      if (turn === this.turn) body.replaceChildren(...content);
    } catch (error) {
      if (turn === this.turn) body.replaceChildren(h("p", { class: "trouble" }, error.message));
    }
  }

  close() {
    this.what = null;
    this.turn += 1;
    this.element.hidden = true;
    this.element.replaceChildren();
    this.back?.isConnected && this.back.focus();
  }

  get shown() {
    return this.what !== null;
  }

  device() {
    return this.state.devices.find((device) => device.uuid === this.what.device);
  }

  content(what, tab) {
    if (what.device) return this.gpu();
    const name = what.replica ?? what.service;
    if (tab === "logs") return output(name);
    if (tab === "story") return story(name);
    return what.replica ? this.replica(name) : this.service(name);
  }

  async service(key) {
    const found = await ask(`/v1/explain?service=${encodeURIComponent(key)}`);
    const decision = found.decision;
    const low = h("input", { type: "number", min: 0, value: found.min_replicas, "aria-label": "Least replicas" });
    const high = h("input", { type: "number", min: 0, value: found.max_replicas, "aria-label": "Most replicas" });
    const scale = h("form", {
      class: "row operates",
      onsubmit: (event) => {
        event.preventDefault();
        this.act("/v1/scale", { service: key, min_replicas: Number(low.value), max_replicas: Number(high.value) },
          `${key}: ${low.value}..${high.value}`);
      },
    }, "from", low, "to", high, h("button", { class: "small" }, "Scale"));
    return [
      h("p", { class: "say" }, `${found.ready} ready, ${found.target} wanted: ${decision.reason}`),
      found.removed ? null : scale,
      section("The decision", facts([
        ["replicas wanted", decision.target],
        ...Object.entries(decision.facts ?? {}).map(([name, value]) => [FACTS[name] ?? name.replaceAll("_", " "), number(value)]),
      ])),
      found.window ? section(`Load, last ${duration(found.window.seconds)}`, facts([
        ["in flight", number(found.window.in_flight)], ["waiting", number(found.window.queued)],
        ["per second", number(found.window.rps)],
        ["in a worker", found.window.service_time ? milliseconds(found.window.service_time * 1000) : ""],
        ["p50 · p99", `${milliseconds(found.load.p50_ms)} · ${milliseconds(found.load.p99_ms)}`],
      ])) : null,
      found.rules ? section("Its rules", facts([
        ["bounds", `${found.min_replicas}..${found.max_replicas}`],
        ["policies", found.rules.policies.map((policy) => `${policy.metric}${policy.target != null ? ` → ${policy.target}` : ""}`).join(", ")],
        ["requests per replica", found.rules.concurrency ?? "no limit"],
        ["depends on", found.rules.depends.join(", ")], ["priority", found.priority], ["revision", found.revision],
      ])) : null,
      Object.keys(found.restart_counts ?? {}).length ? section("Restarts", facts(Object.entries(found.restart_counts))) : null,
    ].filter(Boolean);
  }

  async replica(id) {
    const found = await ask(`/v1/explain?replica=${encodeURIComponent(id)}`);
    return [
      h("p", { class: "say" }, h("b", { class: "phase", "data-phase": found.phase }, found.phase),
        ` for ${duration(found.since_s)}${found.reason ? `: ${found.reason}` : ""}`),
      section("Where", facts([
        ["devices", found.placement.devices.map((device) => `GPU ${device.index ?? "?"} ${device.name} (${device.share >= 1 ? "whole" : device.share})`).join(", ") || "none"],
        ["because", found.placement.reason],
        ["address", found.endpoint], ["pid", found.pid],
      ])),
      section("Life", facts([
        ["service", `${found.deployment}/${found.service}`], ["age", duration(found.age_s)],
        ["took to start", found.startup_s == null ? "" : `${found.startup_s.toFixed(1)} s`],
        ["restarts", found.restarts || ""], ["last exit", found.last_exit], ["revision", found.revision],
      ])),
      section("What led here", chain(found.chain.slice(-8))),
    ];
  }

  gpu() {
    const device = this.device();
    if (!device) return [h("p", { class: "trouble" }, "This device is gone.")];
    const say = (verb, words) => this.act(`/v1/devices/${verb}`, { device: device.uuid }, words);
    const release = h("button", { class: "small", title: "Move its workers elsewhere" }, "Release");
    release.addEventListener("click", () => sure(release, () => say("release", `GPU ${device.index} released`)));
    const away = ["cordoned", "quarantined", "draining"].includes(device.health);
    return [
      h("p", { class: "say" }, h("b", { class: "phase", "data-health": device.health }, device.health),
        device.health_reason || device.withheld ? `: ${device.health_reason || device.withheld}` : ""),
      device.advice ? h("p", { class: "mild say" }, device.advice) : null,
      h("p", { class: "row operates" },
        away ? h("button", { class: "small", onclick: () => say("uncordon", `GPU ${device.index} in use again`) }, "Uncordon")
          : h("button", { class: "small", title: "Nothing new on it", onclick: () => say("cordon", `GPU ${device.index} cordoned`) }, "Cordon"),
        release),
      facts([
        ["name", device.name], ["uuid", device.uuid], ["type", device.type], ["bus", device.bus_id],
        ["NUMA node", device.numa_node], ["part of", device.parent],
        ["memory", `${bytes(device.memory_used)} of ${bytes(device.memory_total)}`],
        ["busy", device.utilization == null ? "" : `${Math.round(device.utilization * 100)}%`],
      ]),
      section("Held by", device.reservations.length ? h("ul", {}, device.reservations.map((owner) => h("li", {},
        h("button", { class: "link mono", onclick: () => this.open({ replica: owner.replica }) }, owner.replica),
        ` ${owner.share >= 1 ? "whole" : `${owner.share} of it`}`))) : h("p", { class: "mild" }, "nobody")),
      device.processes.length ? section("Processes on it", facts(device.processes.map((process) =>
        [`pid ${process.pid}`, process.memory == null ? "?" : bytes(process.memory)]))) : null,
    ].filter(Boolean);
  }
}

const number = (value) => (typeof value === "number" ? count(value) : String(value));
const section = (title, ...content) => h("section", {}, h("h3", {}, title), ...content);

function chain(events) {
  return h("ol", { class: "chain" }, events.map((event) => h("li", { "data-severity": event.severity },
    h("time", { class: "mono", title: event.time }, clock(Date.parse(event.time) / 1000)), h("span", {}, event.message))));
}

async function story(id) {
  const found = await ask(`/v1/story/${encodeURIComponent(id)}`);
  return [h("p", { class: "mild" }, "Everything that is remembered of it, and what caused it."), chain(found.events)];
}

async function output(name) {
  const lines = (await ask(`/v1/logs?tail=${LINES}&service=${encodeURIComponent(name)}`)).trim().split("\n").filter(Boolean);
  if (!lines.length) return [h("p", { class: "mild" }, "It has written nothing yet.")];
  const entries = lines.map((line) => JSON.parse(line));
  const several = new Set(entries.map((entry) => entry.replica)).size > 1;
  return [
    h("pre", { class: "output", tabindex: "0" }, entries.map((entry) => `${several ? `${entry.replica}  ` : ""}${entry.line ?? entry.text ?? entry.message ?? ""}\n`).join("")),
    h("p", { class: "mild" }, `The last lines; all of them: stoker logs ${name}`),
  ];
}
