// Puts the parts together: state from the stream, views over it, keys, the few settings that are kept.

import { Devices, Events } from "./box.js";
import { attribute, byId, h, keyed, text } from "./dom.js";
import { count, duration, keyOf } from "./format.js";
import { History } from "./history.js";
import { Panel } from "./panel.js";
import { forgetColours } from "./plot.js";
import { Pools, hindered } from "./pools.js";
import { ask, follow, setToken, tell } from "./stream.js";

const state = { daemon: null, services: new Map(), order: [], devices: [], inventory: { state: "none", reason: "" } };
const past = new History();
const view = { seconds: Number(localStorage.getItem("stoker.seconds")) || 300, filter: "", skew: 0, now: () => Date.now() / 1000 + view.skew };
const link = { standing: "connecting" };
const PATIENCE = 5; // seconds

const panel = new Panel(byId("panel"), { state, act });
const open = (what) => panel.open(what);
const pools = new Pools(byId("pools"), { history: past, view, act, open });
const devices = new Devices(byId("devices"), byId("devices-box"), { open });
const events = new Events(byId("events"), { open });

// --- what the daemon says ---

function heard(kind, message) {
  view.skew = message.now - Date.now() / 1000;
  if (kind === "state") {
    state.services = new Map(message.services.map((service) => [keyOf(service), service]));
    state.order = [...state.services.keys()];
    events.clear();
    loadHistory();
  } else {
    for (const service of message.services ?? []) state.services.set(keyOf(service), service);
    if (message.order) {
      const gone = [...state.services.keys()].filter((key) => !message.order.includes(key));
      for (const key of gone) state.services.delete(key);
      state.order = message.order;
    }
    if (message.history) past.add(message.history, message.now);
  }
  for (const name of ["daemon", "devices", "inventory"]) if (message[name]) state[name] = message[name];
  events.add(message.events ?? []);
  render();
}

async function loadHistory() {
  try {
    past.fill((await ask("/v1/history")).services);
    render();
  } catch (error) {
    say(error.message, "error");
  }
}

function render() {
  if (!state.daemon) return;
  const services = state.order.map((key) => state.services.get(key)).filter(Boolean);
  for (const service of services) {
    past.level(keyOf(service), view.now(), { target: service.target, ready: service.ready, replicas: service.replicas.length });
  }
  pools.render(services, state.devices);
  devices.render(state.devices, state.inventory);
  summary(services);
  alerts(services);
  pools.tick();
}

function summary(services) {
  const ready = services.reduce((sum, service) => sum + service.ready, 0);
  const target = services.reduce((sum, service) => sum + service.target, 0);
  const rps = services.reduce((sum, service) => sum + service.load.rps, 0);
  const queued = services.reduce((sum, service) => sum + service.load.queued, 0);
  const config = state.daemon.config;
  const out = state.devices.filter((device) => ["quarantined", "unreachable", "lost"].includes(device.health));
  const chips = [
    ["link", link.standing, link.standing === "live" ? "good" : "busy"],
    ["config", configWords(config),
      config.state === "in-force" ? "" : "bad"],
    ["replicas", `${ready} of ${target} ready`, ready >= target ? "" : "busy"],
    ["load", `${count(rps)}/s`, ""],
    out.length ? ["gpus", `${out.length} ${out.length === 1 ? "GPU" : "GPUs"} out of use`, "bad"] : null,
    queued ? ["queue", `${count(queued)} waiting`, "busy"] : null,
    document.body.dataset.role === "view" ? ["role", "view only", ""] : null,
    ["up", state.daemon.stopping ? "draining, then it ends" : `up ${duration(view.now() - state.daemon.started)}`, state.daemon.stopping ? "bad" : ""],
  ].filter(Boolean);
  keyed(byId("summary"), chips, ([name]) => name, () => h("span", { class: "badge" }), (chip, [, words, kind]) => {
    text(chip, words);
    attribute(chip, "data-kind", kind || null);
  });
  document.title = `${config.state === "in-force" ? "" : "! "}${ready}/${target} · Stoker`;
}

function configWords({ state: standing, generation }) {
  if (!generation) return standing === "in-force" ? "starting, reading its config" : "no config in force, it was rejected";
  return standing === "in-force" ? `config ${generation} in force` : `config ${generation} runs, a newer one is rejected`;
}

// What must be seen at once, whatever the page shows below. A start is no trouble: it gets its few seconds.
function alerts(services) {
  const errors = state.daemon.config.errors;
  const places = errors.map((error) => ({
    where: error.file + (error.line ? `:${error.line}:${error.column}` : ""),
    words: `${error.path ? `${error.path}: ` : ""}${error.message}`,
  }));
  const box = byId("alerts");
  const notices = state.daemon.notices ?? [];
  const down = services.filter((service) => service.target && !service.ready && !service.held)
    .map((service) => ({ key: keyOf(service), name: service.name, first: hindered(service.replicas)[0] }))
    .filter(({ first }) => first && (first.restarts > 1 || view.now() - first.since > PATIENCE));
  const wanted = JSON.stringify([places, notices, state.inventory, down.map(({ key, first }) => [key, first.id, first.reason])]);
  if (box.dataset.shown === wanted) return;
  box.dataset.shown = wanted;
  box.replaceChildren(...[
    places.length ? h("div", { class: "alert" },
      h("b", {}, "The newest configuration is rejected; the last good one runs."),
      h("ul", {}, places.map(({ where, words }) => h("li", {}, h("code", {}, where), ` ${words}`)))) : null,
    state.inventory.state === "unreachable" ? h("div", { class: "alert" }, h("b", {}, "The GPUs cannot be asked. "), state.inventory.reason) : null,
    down.length ? h("div", { class: "outage" }, h("ul", {}, down.map(({ name, first }) => h("li", {},
      h("button", { class: "link", onclick: () => open({ replica: first.id }) }, h("b", {}, `${name} serves nothing. `), first.reason))))) : null,
    notices.length ? h("div", { class: "notice" }, h("ul", {}, notices.map((words) => h("li", {}, words)))) : null,
  ].filter(Boolean));
}

// --- what the operator says ---

async function act(path, body, words) {
  try {
    say((await tell(path, body)).message ?? words);
    if (panel.shown) setTimeout(() => panel.shown && panel.open(panel.what), 400);
  } catch (error) {
    error.status === 401 ? locked(error) : say(error.message, "error");
  }
}

let silence = 0;
function say(words, kind = "info") {
  const line = byId("said");
  line.textContent = words;
  line.dataset.kind = kind;
  line.dataset.shown = "yes";
  clearTimeout(silence);
  silence = setTimeout(() => delete line.dataset.shown, kind === "error" ? 9000 : 4000);
}

const stream = follow({
  heard,
  standing(word) {
    link.standing = word;
    document.body.dataset.link = word;
    if (state.daemon) render();
  },
  locked,
});

function locked(error) {
  const dialog = byId("dialog");
  const field = h("input", { type: "password", autocomplete: "off", "aria-label": "Token", required: true });
  dialog.replaceChildren(h("form", {
    method: "dialog",
    onsubmit: () => {
      setToken(field.value.trim());
      stream.again();
    },
  }, h("h2", {}, "This daemon wants its token"), h("p", {}, error.message), h("p", {}, field),
  h("p", { class: "row" }, h("button", { class: "small" }, "Open"))));
  if (!dialog.open) dialog.showModal();
}

// --- settings and keys ---

function range(seconds) {
  view.seconds = seconds;
  localStorage.setItem("stoker.seconds", seconds);
  for (const button of byId("range").children) {
    attribute(button, "aria-pressed", String(Number(button.dataset.seconds) === seconds));
  }
  pools.tick();
}

const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(wanted) {
  attribute(document.documentElement, "data-theme", wanted || null);
  forgetColours();
  pools.tick();
}

function otherTheme() {
  const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  const wanted = now === "dark" ? "light" : "dark";
  localStorage.setItem("stoker.theme", wanted);
  theme(wanted);
}

const KEYS = [
  ["← ↑ ↓ →", "from cell to cell"], ["Enter", "why: explain and story"], ["Esc", "close"], ["/", "filter services"],
  ["1 2 3", "five minutes, a quarter, an hour"], ["t", "dark or light"], ["?", "these keys"],
];

function help() {
  const dialog = byId("dialog");
  dialog.replaceChildren(h("form", { method: "dialog" }, h("h2", {}, "Keys"),
    h("dl", { class: "facts" }, KEYS.map(([key, words]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, words)])),
    h("p", { class: "row" }, h("button", { class: "small" }, "Close"))));
  if (!dialog.open) dialog.showModal();
}

function move(step) {
  const places = [...document.querySelectorAll("[data-nav]")].filter((element) => element.offsetParent);
  const here = places.indexOf(document.activeElement);
  const next = places[Math.min(places.length - 1, Math.max(0, here + step))];
  next?.focus();
}

const COMMANDS = {
  ArrowRight: () => move(+1), ArrowDown: () => move(+1), ArrowLeft: () => move(-1), ArrowUp: () => move(-1),
  "/": () => byId("filter").focus(), "?": help, t: otherTheme,
  1: () => range(300), 2: () => range(900), 3: () => range(3600),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("dialog").open) return;
  if (event.key === "Escape") {
    if (panel.shown) panel.close();
    else document.activeElement?.blur();
    return;
  }
  if (event.target.closest?.("input, pre, textarea")) return;
  const scrolls = event.key.startsWith("Arrow") && !document.activeElement?.matches("[data-nav]");
  const command = scrolls && event.key !== "ArrowRight" ? null : COMMANDS[event.key];
  if (command) {
    event.preventDefault();
    command();
  }
});

byId("filter").addEventListener("input", (event) => {
  view.filter = event.target.value.trim().toLowerCase();
  render();
});
byId("range").addEventListener("click", (event) => event.target.dataset.seconds && range(Number(event.target.dataset.seconds)));
byId("theme").addEventListener("click", otherTheme);
byId("help").addEventListener("click", help);
byId("troubles").addEventListener("change", (event) => attribute(byId("events"), "data-troubles", event.target.checked ? "yes" : null));
dark.addEventListener("change", () => theme(localStorage.getItem("stoker.theme")));
addEventListener("resize", () => pools.tick());
setInterval(() => {
  if (!document.hidden && state.daemon) {
    pools.tick();
    const services = state.order.map((key) => state.services.get(key)).filter(Boolean);
    summary(services);
    alerts(services);
  }
}, 1000);
theme(localStorage.getItem("stoker.theme"));
range(view.seconds);
