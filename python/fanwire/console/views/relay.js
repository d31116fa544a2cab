// Relays: upstreams, lanes by their state, what was refused; and the lanes one by one.

import { get } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, empty, facts, failure, muted, pager, select, table } from "../parts.js";
import { poll } from "../poll.js";

const EVERY_MS = 2000;
const PAGE = 100;
const GOOD = new Set(["live", "up", "connected", "ready"]);
const BAD = new Set(["down", "failed", "refused", "lost"]);

export const stateBadge = (state, why = "") =>
  badge(state ?? "–", GOOD.has(state) ? "ok" : BAD.has(state) ? "bad" : "warn", why || null);

const UPSTREAMS = [
  { label: "Upstream", cell: (row) => row.url, class: "name" },
  { label: "State", cell: (row) => [stateBadge(row.state, row.why), row.why ? [" ", muted(row.why)] : ""] },
  { label: "Connects", cell: (row) => format.count(row.connects), number: true, rank: 2 },
  {
    label: "Failures",
    cell: (row) => (row.failures ? h("span", { class: "warn-text" }, format.count(row.failures)) : "0"),
    number: true,
  },
];
const LANES = [
  {
    label: "Lane",
    cell: (row) => [h("code", {}, row.method), " ", h("code", { class: "muted" }, row.arguments)],
    class: "name",
  },
  { label: "State", cell: (row) => stateBadge(row.state, row.why) },
  { label: "Clients", cell: (row) => format.count(row.clients), number: true },
  {
    label: "Gap",
    cell: (row) =>
      row.gap_since === null ? muted("–") : h("span", { class: "warn-text" }, `since ${format.clock(row.gap_since)}`),
    number: true,
  },
  { label: "Gaps", cell: (row) => format.count(row.gaps), number: true, rank: 2 },
  { label: "Path", cell: (row) => row.path, rank: 2 },
  { label: "Protocol", cell: (row) => row.protocol, rank: 3 },
  {
    label: "Worker",
    cell: (row) => [
      row.worker,
      row.held_by === null || row.held_by === row.worker ? "" : [" ", muted(`held by ${row.held_by}`)],
    ],
    number: true,
    rank: 3,
  },
  { label: "Why", cell: (row) => row.why || muted("–"), rank: 2, class: "name" },
];

export const open = (page) => {
  let query = {};
  let relays = null;
  let lanes = null;
  let failed = null;
  let asked = null;
  const path = select({ "aria-label": "Relay" }, [["", "all relays"]], "");
  path.addEventListener("change", () => page.go("relay", { path: path.value }));
  const tools = h("form", { class: "tools" }, h("label", {}, h("span", { class: "muted" }, "Lanes of "), path));

  const load = async (signal) => {
    const found = await get("relays", {}, signal);
    if (!found.relays.length) return [[], { lanes: [], next: null }];
    return [found.relays, await get("lanes", { path: query.path, limit: PAGE, after: query.after }, signal)];
  };

  const card = (one) =>
    h(
      "section",
      { class: "panel", "data-key": `${one.worker} ${one.path}` },
      h("h2", {}, one.path, " ", muted(`worker ${one.worker}`)),
      h(
        "p",
        { class: "chips" },
        Object.entries(one.lanes).map(([state, total]) => [stateBadge(state), ` ${format.several(total, "lane")} `]),
        Object.entries(one.broadcasts).map(([name, state]) => [
          badge(`broadcasts, ${name}`),
          " ",
          stateBadge(state),
          " ",
        ]),
      ),
      facts(
        ["Watching", format.count(one.watching)],
        ["Private lanes", format.count(one.private_lanes)],
        ["Gaps", format.count(one.gaps)],
        ["Unused", format.count(one.unused)],
        ...Object.entries(one.refused).map(([what, total]) => [
          `Refused: ${what}`,
          h("span", { class: total ? "warn-text" : "" }, format.count(total)),
        ]),
      ),
      table(`Upstreams of ${one.path}`, UPSTREAMS, one.upstreams, (row) => row.url),
    );

  const render = () => {
    if (failed && relays === null) return page.show(failure(failed));
    if (relays === null) return page.show(empty("…"));
    if (!relays.length)
      return page.show(
        empty("This hub relays nothing", "A relay shares connections to a SignalR backend: docs/relay.md tells how."),
      );
    const names = ["", ...new Set(relays.map((one) => one.path))];
    if (names.length !== path.options.length)
      path.replaceChildren(...names.map((name) => h("option", { value: name }, name || "all relays")));
    path.value = query.path ?? "";
    const shown = relays.filter((one) => !query.path || one.path === query.path);
    const rows = lanes.lanes;
    return page.show(
      failed ? failure(failed) : null,
      shown.map(card),
      h(
        "section",
        { class: "panel" },
        h("h2", {}, "Lanes"),
        rows.length
          ? table(
              "Lanes",
              LANES,
              rows,
              (row) => `${row.worker} ${row.path} ${row.method} ${row.arguments} ${row.protocol}`,
            )
          : empty("No lane", "A lane is opened when a client asks for what may be shared."),
      ),
      pager("relay", { path: query.path }, query.after, lanes.next),
    );
  };
  page.tools(tools, null);
  const changed = (next) => {
    query = next;
    asked?.close();
    asked = poll(load, EVERY_MS, (data, error) => {
      failed = error;
      if (data) [relays, lanes] = data;
      render();
    });
    render();
  };
  return { changed, close: () => asked.close() };
};
