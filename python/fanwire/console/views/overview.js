// The whole at a glance: eight small charts, who lags most, what costs most, what went wrong.

import { get } from "../api.js";
import { chart } from "../chart.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, empty, facts, failure, hash, link, muted, table } from "../parts.js";
import { poll } from "../poll.js";
import { badCloses } from "../readings.js";
import { lagText, whyBadge } from "../why.js";

const LISTS_MS = 5000;
const ROWS = 6;
const CARDS = [
  {
    name: "Deliveries",
    lines: ["deliveries"],
    value: (one) => format.rate(one.deliveries),
    more: (one) => `${format.rate(one.publications)} published`,
  },
  {
    name: "Completion p99",
    lines: ["p99", "p50"],
    value: (one) => format.duration(one.p99),
    more: (one) => `p50 ${format.duration(one.p50)}`,
    title: "Until the last subscriber that keeps up was written to",
  },
  {
    name: "Connections",
    lines: ["connections"],
    value: (one) => format.count(one.connections),
    more: (one, stats) => `${format.count(stats?.subscriptions)} subscriptions`,
    to: hash("clients"),
  },
  {
    name: "Lagging",
    lines: ["lagging"],
    value: (one) => format.count(one.lagging),
    more: (one, stats) => `${format.count(stats?.overtaken)} overtaken since start`,
    to: hash("clients", { lagging: true, sort: "lag" }),
    tone: (one) => one.lagging > 0 && "warn",
  },
  {
    name: "Bytes out",
    lines: ["bytes_out"],
    value: (one) => `${format.bytes(one.bytes_out)}${one.bytes_out === null ? "" : "/s"}`,
    more: (one) => `${format.bytes(one.bytes_in)}${one.bytes_in === null ? "" : "/s"} in`,
  },
  {
    name: "Errors",
    lines: ["errors"],
    value: (one) => format.rate(one.errors),
    more: () => "refused, failed, closed badly",
    tone: (one) => one.errors > 0 && "bad",
  },
  {
    name: "CPU",
    lines: ["cpu"],
    value: (one) => format.percent(one.cpu),
    more: () => "of one core",
    title: "100 % is one core",
  },
  {
    name: "Memory",
    lines: ["memory"],
    value: (one) => format.bytes(one.memory),
    more: (one, stats) => (stats ? format.several(stats.workers.length, "worker") : ""),
    to: hash("workers"),
  },
];
const CLOSES = {
  1002: "protocol error",
  1003: "cannot be read",
  1006: "lost",
  1007: "no UTF-8",
  1008: "refused, or disconnected",
  1009: "too big",
  1011: "internal error",
  1012: "restart",
  1013: "lagged too far",
};

const CLIENTS = [
  { label: "Client", cell: (row) => link(row.client, "clients", { client: row.client, lagging: true, sort: "lag" }) },
  { label: "User", cell: (row) => row.user ?? muted("–"), class: "name" },
  { label: "Lag", cell: (row) => (row.lag ? lagText(row.lag) : "–"), number: true },
  { label: "Why", cell: (row) => (row.lag ? whyBadge(row.lag) : "") },
  { label: "Channel", cell: (row) => row.lag?.channel ?? muted("–"), rank: 3, class: "name" },
];
const CHANNELS = [
  { label: "Channel", cell: (row) => link(row.channel, "channels", { channel: row.channel }), class: "name" },
  { label: "Subscribers", cell: (row) => format.count(row.subscribers), number: true },
  { label: "Rate", cell: (row) => format.rate(row.rate), number: true, rank: 2 },
  { label: "Deliveries", cell: (row) => format.rate(row.deliveries), number: true },
];

export const open = (page) => {
  let hovered = null; // between 0, at the left end, and 1
  let clients = null;
  let channels = null;
  let channelsError = null;
  const { readings } = page;

  const card = (one, now, at, stats) => {
    const sample = at === null ? readings.samples.at(-1) : readings.at(at);
    const value = sample ? one.value(sample) : "–";
    const tone = (sample && one.tone?.(sample)) || "";
    const small = at === null ? (sample ? one.more(sample, stats) : "") : format.clock(at);
    return h(
      "section",
      { class: "card", "data-key": one.name, title: one.title },
      h("h2", {}, one.to ? h("a", { href: one.to }, one.name) : one.name),
      h("p", { class: `value ${tone}` }, value),
      h("p", { class: "more" }, small),
      h(
        "div",
        { class: "plot", "data-plot": "" },
        chart(readings, one.lines, now, at, `${one.name}, the last minutes: now ${value}`),
      ),
    );
  };

  const sinceStart = (stats) => {
    const closes = badCloses(stats).map(([code, total]) => [
      `Closed ${code}`,
      format.count(total),
      " ",
      muted(CLOSES[code] ?? ""),
    ]);
    const faults = Object.entries(stats.faults).map(([name, total]) => [
      `Failed: ${name}`,
      format.count(total),
      " ",
      muted("see the log"),
    ]);
    const skipped = Object.entries(stats.skipped)
      .filter(([, total]) => total)
      .map(([policy, total]) => [`Skipped, ${policy}`, format.count(total)]);
    const some = (name, total, note = "") => total > 0 && [name, format.count(total), " ", muted(note)];
    return facts(
      ["Connections", format.count(stats.connections_total)],
      ["Publications", format.count(stats.publications)],
      [
        "Deliveries",
        format.count(stats.deliveries),
        " ",
        muted(stats.writes ? `${(stats.deliveries / stats.writes).toFixed(1)} a write` : ""),
      ],
      ["Bytes out", format.bytes(stats.bytes_out)],
      some("Overtaken", stats.overtaken, "lagged behind what is kept"),
      some("Expired", stats.expired, "their time was over"),
      some("Handshakes refused", stats.handshakes_refused),
      some("Tokens refused", stats.tokens_refused),
      some("Accepting paused", stats.accept_pauses, "descriptors ran out"),
      ...skipped,
      ...closes,
      ...faults,
    );
  };

  const lagList = (stats) => {
    if (stats.lagging === 0) return empty("Everybody keeps up", "No client lags.");
    if (clients === null) return empty("…");
    if (clients.length === 0) return empty("Everybody keeps up", "Who lagged a moment ago does no more.");
    return table("Clients that lag most", CLIENTS, clients, (row) => row.client);
  };

  const render = () => {
    const stats = readings.latest;
    if (!stats) {
      page.show(page.error ? failure(page.error) : empty("…"));
      return;
    }
    const span = readings.span(stats.at);
    const at = hovered === null ? null : stats.at - span * (1 - hovered);
    page.show(
      h(
        "div",
        { class: "cards" },
        CARDS.map((one) => card(one, stats.at, at, stats)),
      ),
      h("p", { class: "axis" }, h("span", {}, `${span / 60} min ago`), h("span", {}, "now")),
      h(
        "div",
        { class: "pair" },
        h(
          "section",
          { class: "panel" },
          h(
            "h2",
            {},
            "Lagging most ",
            stats.lagging
              ? link(
                  `all ${format.count(stats.lagging)}`,
                  "clients",
                  { lagging: true, sort: "lag" },
                  { class: "aside" },
                )
              : null,
          ),
          lagList(stats),
        ),
        h(
          "section",
          { class: "panel" },
          h(
            "h2",
            {},
            "Channels that cost most ",
            link(`all ${format.count(stats.channels)}`, "channels", {}, { class: "aside" }),
          ),
          channelsError
            ? failure(channelsError)
            : channels === null
              ? empty("…")
              : channels.length
                ? table("Channels that cost most", CHANNELS, channels, (row) => row.channel)
                : empty("No channel yet", "A channel is there once somebody subscribes or publishes."),
        ),
      ),
      h(
        "section",
        { class: "panel" },
        h("h2", {}, "Since start ", badge(`fanwire ${stats.version}`)),
        sinceStart(stats),
      ),
    );
  };

  const lists = poll(
    async (signal) => {
      const isLagging = (readings.latest?.lagging ?? 1) > 0;
      const [some, top] = await Promise.all([
        isLagging ? get("clients", { lagging: true, sort: "lag", limit: ROWS }, signal) : { clients: [] },
        get("channels", { sort: "deliveries", limit: ROWS }, signal),
      ]);
      return [some.clients, top.channels];
    },
    LISTS_MS,
    (data, error) => {
      channelsError = error;
      if (data) [clients, channels] = data;
      render();
    },
  );
  const hover = (event) => {
    const plot = event.target.closest?.("[data-plot]");
    const before = hovered;
    if (plot) {
      const { left, width } = plot.getBoundingClientRect();
      hovered = Math.min(1, Math.max(0, (event.clientX - left) / width));
    } else {
      hovered = null;
    }
    if (hovered !== before) render();
  };
  const leave = () => {
    hovered = null;
    render();
  };
  page.content.addEventListener("pointermove", hover);
  page.content.addEventListener("pointerleave", leave);
  render();
  return {
    told: render,
    close: () => {
      lists.close();
      page.content.removeEventListener("pointermove", hover);
      page.content.removeEventListener("pointerleave", leave);
    },
  };
};
