// The admin side's API, with the token. The token is in this tab's sessionStorage and in the Authorization header only.

const BASE = new URL("../api/", import.meta.url);
const TOKEN = "fanwire-token";

/** What the API refuses, by the `code` of its problem; `unreachable` where nobody answers. */
export class Refused extends Error {
  constructor(code, detail, status = 0) {
    super(detail);
    this.code = code;
    this.status = status;
  }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
let isLocked = false;

/** From now on this token is sent; null: none. One request tries it before the others follow. */
export const setToken = async (token) => {
  if (token === null) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, token);
  isLocked = false;
  try {
    await get("stats");
  } catch (error) {
    if (error.status === 401) return;
  }
  window.dispatchEvent(new Event("unlocked"));
};

const refusal = async (response) => {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // No problem of ours: of a proxy, perhaps.
  }
  const code = problem.code ?? (response.status === 401 ? "no_token" : "unknown");
  return new Refused(code, problem.detail ?? `the answer is ${response.status}`, response.status);
};

const send = async (path, query, options) => {
  if (isLocked) throw new Refused("no_token", "a token is needed", 401);
  const url = new URL(path, BASE);
  for (const [name, value] of query) url.searchParams.append(name, value);
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token === null ? {} : { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(url, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused("unreachable", "The admin side does not answer.");
  }
  if (response.ok) return response;
  const refused = await refusal(response);
  if (refused.status === 401 && !isLocked && token === sessionStorage.getItem(TOKEN)) {
    isLocked = true;
    window.dispatchEvent(new CustomEvent("locked", { detail: { isWrong: token !== null } }));
  }
  throw refused;
};

const pairs = (query) =>
  Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");

/** `GET /api/PATH`. Throws Refused. */
export const get = async (path, query = {}, signal = undefined) => (await send(path, pairs(query), { signal })).json();

/** `POST /api/PATH`. Throws Refused. */
export const post = async (path, body, headers = {}) => {
  const options = {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", ...headers },
  };
  return (await send(path, [], options)).json();
};

/** Reads an event stream to its end: `told(event, data)` for each of its events. Throws Refused. */
const read = async (channel, told, signal) => {
  const response = await send("live", [["channel", channel]], { signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = { event: "message", data: [] };
      for (const line of block.split("\n")) {
        const [, name, text] = /^(event|data): ?(.*)$/s.exec(line) ?? [];
        if (name === "event") fields.event = text;
        else if (name === "data") fields.data.push(text);
      }
      if (fields.data.length) told(fields.event, JSON.parse(fields.data.join("\n")));
    }
  }
};

const RETRY_MS = 3000;

/**
 * Follows a channel of `/api/live` while the page is visible, and again after it was lost.
 * `changed(error)` is told when it is followed (null) and when it is not.
 */
export const follow = (channel, told, changed) => {
  let controller = null;
  let timer = 0;
  const run = async () => {
    clearTimeout(timer);
    controller?.abort();
    if (document.hidden) return;
    const mine = (controller = new AbortController());
    let error = new Refused("unreachable", "The stream has ended.");
    try {
      changed(null);
      await read(channel, told, mine.signal);
    } catch (thrown) {
      error = thrown;
    }
    if (mine.signal.aborted) return;
    changed(error);
    if (error.status !== 401) timer = setTimeout(run, RETRY_MS);
  };
  const stop = new AbortController();
  document.addEventListener("visibilitychange", run, { signal: stop.signal });
  window.addEventListener("unlocked", run, { signal: stop.signal });
  run();
  return () => {
    stop.abort();
    clearTimeout(timer);
    controller?.abort();
  };
};
