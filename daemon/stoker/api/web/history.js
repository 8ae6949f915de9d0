// The last hour of each service: lists as the daemon sends them, grown by what the stream brings.

const HOUR = 3600;
const LOAD = ["t", "s", "in_flight", "queued", "rps", "p50", "p99"];
const LEVELS = ["t", "target", "ready", "replicas"];

export class History {
  constructor() {
    this.services = new Map();
  }

  // Everything anew.
  fill(services) {
    this.services = new Map(Object.entries(services));
  }

  of(key) {
    let found = this.services.get(key);
    if (!found) {
      found = { load: empty(LOAD), levels: empty(LEVELS) };
      this.services.set(key, found);
    }
    return found;
  }

  add(services, now) {
    for (const [key, more] of Object.entries(services)) {
      const { load, levels } = this.of(key);
      // A stretch may come again, longer: what it covers goes first.
      if (more.load.t.length) cut(load, LOAD, (i) => load.t[i] > more.load.t[0] - more.load.s[0] + 0.01);
      if (more.levels.t.length) cut(levels, LEVELS, (i) => levels.t[i] >= more.levels.t[0]);
      for (const name of LOAD) load[name].push(...more.load[name]);
      for (const name of LEVELS) levels[name].push(...more.levels[name]);
      forget(load, LOAD, now - HOUR);
      forget(levels, LEVELS, now - HOUR);
    }
  }

  // The counts as they are now, in case nothing of them has been written down.
  level(key, now, counts) {
    const { levels } = this.of(key);
    const last = levels.t.length - 1;
    if (last >= 0 && ["target", "ready", "replicas"].every((name) => levels[name][last] === counts[name])) return;
    levels.t.push(Math.max(now, last >= 0 ? levels.t[last] : 0));
    for (const name of ["target", "ready", "replicas"]) levels[name].push(counts[name]);
  }
}

const empty = (names) => Object.fromEntries(names.map((name) => [name, []]));

function cut(lists, names, gone) {
  let keep = lists.t.length;
  while (keep && gone(keep - 1)) keep -= 1;
  for (const name of names) lists[name].length = keep;
}

function forget(lists, names, before) {
  let old = 0;
  while (old < lists.t.length - 1 && lists.t[old + 1] < before) old += 1;
  if (old > 60) for (const name of names) lists[name].splice(0, old);
}
