// The page's frame: where one is, what is live, keys, the token. What a view shows is its own file's.

import { get, hasToken, setToken } from "./api.js";
import { h, s, show } from "./dom.js";
import * as format from "./format.js";
import { hash, link } from "./parts.js";
import { poll } from "./poll.js";
import { Readings } from "./readings.js";
import { askToken, showKeys } from "./asking.js";
import { watchKeys } from "./keys.js";
import * as theme from "./theme.js";
import * as channels from "./views/channels.js";
import * as clients from "./views/clients.js";
import * as log from "./views/log.js";
import * as overview from "./views/overview.js";
import * as relay from "./views/relay.js";
import * as settings from "./views/settings.js";
import * as workers from "./views/workers.js";

const STATS_MS = 1000;
const VIEWS = {
  overview: { title: "Overview", key: "o", view: overview, icon: "M2 13V9M6 13V5M10 13V7M14 13V2" },
  channels: { title: "Channels", key: "c", view: channels, icon: "M2 8h4M6 8c4 0 4-5 8-5M6 8h8M6 8c4 0 4 5 8 5" },
  clients: {
    title: "Clients",
    key: "l",
    view: clients,
    icon: "M8 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM2 14c0-3 3-4 6-4s6 1 6 4",
  },
  relay: { title: "Relay", key: "r", view: relay, icon: "M2 5h11M10 2l3 3-3 3M14 11H3M6 8l-3 3 3 3" },
  workers: { title: "Workers", key: "w", view: workers, icon: "M2 3h12v4H2zM2 9h12v4H2zM5 5h0M5 11h0" },
  settings: {
    title: "Settings",
    key: "s",
    view: settings,
    icon: "M2 4h6M12 4h2M2 12h2M8 12h6M10 6a2 2 0 1 0 0-4 2 2 0 0 0 0 4ZM6 14a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z",
  },
  log: { title: "Log", key: "t", view: log, icon: "M2 3h12M2 6.5h9M2 10h12M2 13.5h7" },
};

const icon = (path) => s("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, s("path", { d: path }));
const navigation = Object.entries(VIEWS).map(([name, one]) =>
  h(
    "a",
    { href: hash(name), id: `to-${name}`, title: `g ${one.key}` },
    icon(one.icon),
    h("span", {}, one.title),
    h("kbd", { "aria-hidden": "true" }, one.key),
  ),
);
const title = h("h1", {});
const pulse = h("p", { id: "pulse", role: "status" });
const notice = h("div", { id: "notice", role: "status" });
const tools = h("div", { id: "tools" });
const content = h("div", { id: "content" });
const drawer = h("aside", { id: "drawer", hidden: true, tabindex: "-1", "aria-label": "Details" });
const forget = h(
  "button",
  { type: "button", class: "plain", hidden: true, onclick: () => setToken(null) },
  "Forget the token",
);
document.body.append(
  h(
    "a",
    { class: "skip", href: "#main", onclick: (event) => (event.preventDefault(), content.focus()) },
    "To the content",
  ),
  h(
    "div",
    { id: "frame" },
    h(
      "header",
      { id: "side" },
      h(
        "a",
        { class: "brand", href: hash("overview") },
        s(
          "svg",
          { viewBox: "0 0 32 32", "aria-hidden": "true" },
          s("path", { d: "M7 16h6M13 16c5 0 5-8 11-8M13 16h11M13 16c5 0 5 8 11 8" }),
          s("circle", { cx: 8, cy: 16, r: 3 }),
        ),
        h("span", {}, "fanwire"),
      ),
      h("nav", { "aria-label": "Views" }, navigation),
    ),
    h(
      "div",
      { id: "body" },
      h("div", { id: "top" }, title, pulse),
      notice,
      h("main", { id: "main" }, tools, content),
      h(
        "footer",
        {},
        theme.control(),
        h("button", { type: "button", class: "plain", onclick: showKeys }, "Keys ", h("kbd", {}, "?")),
        forget,
      ),
    ),
    drawer,
  ),
  h("div", { id: "toasts", "aria-live": "polite" }),
);
content.tabIndex = -1;

const readings = new Readings();
readings.restore();
let current = null; // the view that is open: its name, what it has of the page, what it gave
let statsError = null;
let lastFocus = null;

const place = () => {
  const [, name, query] = /^#\/([a-z]*)\??(.*)$/s.exec(location.hash) ?? [null, "overview", ""];
  return {
    name: Object.hasOwn(VIEWS, name) ? name : "overview",
    query: Object.fromEntries(new URLSearchParams(query)),
  };
};

const makePage = (name) => {
  const page = {
    readings,
    content,
    search: null,
    doing: {},
    get error() {
      return statsError;
    },
    go: (view, query, { isQuiet = false } = {}) => {
      if (isQuiet) history.replaceState(null, "", hash(view, query));
      else location.hash = hash(view, query);
    },
    show: (...children) => current?.page === page && show(content, ...children),
    tools: (made, search) => {
      tools.replaceChildren(...(made ? [made] : []));
      page.search = search;
    },
    actions: (doing) => (page.doing = doing),
    drawer: (heading, ...children) => current?.page === page && showDrawer(heading, children),
  };
  return page;
};

const showDrawer = (heading, children) => {
  const wasHidden = drawer.hidden;
  if (heading === null) {
    drawer.hidden = true;
    drawer.replaceChildren();
    if (!wasHidden && lastFocus?.isConnected) lastFocus.focus({ preventScroll: true });
    return;
  }
  if (wasHidden) lastFocus = document.activeElement;
  drawer.hidden = false;
  const close = h(
    "button",
    { type: "button", class: "close", "data-do": "close", "aria-label": "Close", title: "Esc" },
    "×",
  );
  show(
    drawer,
    h("header", {}, h("h2", {}, heading), close),
    h("div", { class: "drawer-body", "data-key": heading }, children),
  );
  if (wasHidden) drawer.focus({ preventScroll: true });
};

const arrive = () => {
  const { name, query } = place();
  if (current?.name !== name) {
    current?.opened.close();
    showDrawer(null);
    tools.replaceChildren();
    content.replaceChildren();
    content.className = name;
    window.scrollTo(0, 0);
    const page = makePage(name);
    current = { name, page, opened: { close: () => {} } };
    title.textContent = VIEWS[name].title;
    document.title = `${VIEWS[name].title} · fanwire`;
    navigation.forEach((one) =>
      one.id === `to-${name}` ? one.setAttribute("aria-current", "page") : one.removeAttribute("aria-current"),
    );
    current.opened = VIEWS[name].view.open(page);
  }
  current.opened.changed?.(query);
};

const say = () => {
  const stats = readings.latest;
  pulse.className = statsError ? "lost" : stats ? "live" : "";
  show(
    pulse,
    h("span", { class: "dot" }),
    statsError ? "not live" : stats ? "live" : "…",
    h("span", { class: "muted host" }, location.host),
  );
  const silent = stats?.silent ?? [];
  const asked = stats ? ` Numbers are of ${format.clock(stats.at)}.` : "";
  show(
    notice,
    statsError && statsError.status !== 401
      ? h("p", { class: "bad" }, `${statsError.message}${asked} Trying again.`)
      : null,
    silent.length
      ? h(
          "p",
          { class: "warn" },
          `Worker ${silent.join(", ")} does not answer: what is told is without it. `,
          link("Workers", "workers"),
        )
      : null,
  );
  forget.hidden = !hasToken();
};

document.addEventListener("click", (event) => {
  const doer = event.target.closest("[data-do]:not(form)");
  if (doer) {
    current.page.doing[doer.dataset.do]?.(doer.dataset, doer);
    return;
  }
  const row = event.target.closest("tbody tr");
  if (row && !event.target.closest("a, button") && getSelection().isCollapsed) row.querySelector("a")?.click();
});
document.addEventListener("submit", (event) => {
  const { do: action } = event.target.dataset;
  if (action) {
    event.preventDefault();
    current.page.doing[action]?.(event.target.dataset, event.target);
  }
});
window.addEventListener("hashchange", arrive);
window.addEventListener("locked", (event) => askToken(event.detail.isWrong, setToken));
window.addEventListener("pagehide", () => readings.keep());
watchKeys({
  go: (name) => (location.hash = hash(name)),
  views: Object.fromEntries(Object.entries(VIEWS).map(([name, one]) => [one.key, name])),
  search: () => current.page.search,
  close: () => !drawer.hidden && current.page.doing.close?.(),
  help: showKeys,
});

poll(
  (signal) => get("stats", {}, signal),
  STATS_MS,
  (data, error) => {
    statsError = error;
    if (data) readings.add(data);
    say();
    current.opened.told?.();
  },
);
say();
arrive();
