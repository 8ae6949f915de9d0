// The daemon: asked by fetch with the token where one is needed, heard as server-sent events.
// Not EventSource: it cannot send the token, and a token in an address ends up in logs.

const STORED = "stoker.token";

function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(STORED, found);
    history.replaceState(null, "", location.pathname + location.search);
  }
}
takeToken();
addEventListener("hashchange", takeToken);

export function setToken(token) {
  sessionStorage.setItem(STORED, token);
}

function headers(more) {
  const token = sessionStorage.getItem(STORED);
  return token ? { ...more, authorization: `Bearer ${token}` } : { ...more };
}

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  const places = (problem.errors ?? []).map((e) => `${e.path ? `${e.path}: ` : ""}${e.message}`);
  return new Refused(answer.status, places.join("\n") || problem.detail || `the daemon answered ${answer.status}`);
}

export async function ask(path) {
  const answer = await fetch(path, { headers: headers(), cache: "no-store" });
  if (!answer.ok) throw await refusal(answer);
  return answer.headers.get("content-type").startsWith("application/json") ? answer.json() : answer.text();
}

export async function tell(path, body) {
  const answer = await fetch(path, {
    method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body),
  });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

// Calls heard(kind, message) for each message and standing(word) when the connection's state changes. Runs as
// long as the page is seen: a hidden one lets go of its connection, of which a browser has six for one address.
export function follow({ heard, standing, locked }) {
  let attempt = 0;
  let current = null;
  let hiding = 0;

  async function run() {
    const abort = (current = new AbortController());
    standing(attempt ? "reconnecting" : "connecting");
    try {
      const answer = await fetch("/v1/live", { headers: headers(), signal: abort.signal, cache: "no-store" });
      if (answer.status === 401 || answer.status === 429) {
        locked(await refusal(answer));
        return;
      }
      if (!answer.ok) throw await refusal(answer);
      document.body.dataset.role = answer.headers.get("stoker-role") ?? "operate";
      attempt = 0;
      standing("live");
      await read(answer.body.getReader(), heard);
    } catch (error) {
      if (abort.signal.aborted) return;
    }
    if (abort.signal.aborted || document.hidden) return;
    standing("reconnecting");
    attempt += 1;
    setTimeout(() => current === abort && run(), Math.min(5000, 250 * 2 ** attempt));
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (!document.hidden) {
      if (!current || current.signal.aborted) run();
    } else {
      hiding = setTimeout(() => current?.abort(), 15000);
    }
  });
  run();
  return { again: () => { current?.abort(); attempt = 0; run(); } };
}

async function read(reader, heard) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const messages = rest.split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const found = { event: "message", data: "" };
      for (const line of message.split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (found.data) heard(found.event, JSON.parse(found.data));
    }
  }
}
