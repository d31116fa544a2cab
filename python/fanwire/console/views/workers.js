// Workers and machines: each process with its load, its descriptors, and whether it hears the others.

import { get } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, empty, facts, failure, muted, table } from "../parts.js";
import { poll } from "../poll.js";
import { stateBadge } from "./relay.js";

const EVERY_MS = 1000;
const FULL = 0.8; // of its descriptors

const state = (row) => {
  if (row.apart)
    return badge(
      "apart",
      "bad",
      "It does not hear the other workers: what is published elsewhere does not reach its clients",
    );
  if (row.draining) return badge("draining", "warn", "It takes nobody in, and ends when its clients have gone");
  return badge("up", "ok");
};

const descriptors = (row) => {
  if (row.descriptors === null) return muted("–");
  const share = row.descriptors / row.descriptors_max;
  const text = `${format.count(row.descriptors)} of ${format.short(row.descriptors_max)}`;
  return share < FULL ? text : h("span", { class: "warn-text", title: "Raise the limit: docs/million.md" }, text);
};

const COLUMNS = [
  {
    label: "Worker",
    cell: (row) => [row.worker, row.answered ? [" ", badge("asked", "quiet", "The one that answers this page")] : ""],
  },
  { label: "State", cell: state },
  { label: "Process", cell: (row) => row.process, number: true, rank: 3 },
  { label: "Up for", cell: (row) => format.since(row.since), number: true, rank: 2 },
  { label: "Connections", cell: (row) => format.count(row.connections), number: true },
  {
    label: "Lagging",
    cell: (row) => (row.lagging ? h("span", { class: "warn-text" }, format.count(row.lagging)) : "0"),
    number: true,
    rank: 2,
  },
  { label: "Deliveries", cell: (row) => format.rate(row.rates?.deliveries), number: true },
  { label: "Out", cell: (row) => (row.rates ? `${format.bytes(row.rates.bytes_out)}/s` : "–"), number: true, rank: 2 },
  { label: "CPU", cell: (row) => format.percent(row.rates?.cpu), number: true },
  { label: "Memory", cell: (row) => format.bytes(row.memory), number: true, rank: 2 },
  { label: "Descriptors", cell: descriptors, number: true, rank: 3 },
  { label: "Address", cell: (row) => row.address, rank: 3, class: "name" },
  { label: "Engine", cell: (row) => `${row.poller}, ${format.several(row.shards, "shard")}`, rank: 3 },
];

/** A row with what it does a second, by the reading before. */
const withRates = (row, before, took) => {
  const then = before?.get(row.worker);
  if (!then || then.since !== row.since || took <= 0) return { ...row, rates: null };
  const each = (name) => Math.max(0, row[name] - then[name]) / took;
  return { ...row, rates: { deliveries: each("deliveries"), bytes_out: each("bytes_out"), cpu: each("cpu") } };
};

export const open = (page) => {
  let rows = null;
  let answer = null;
  let failed = null;
  let before = null;

  const take = (data) => {
    const now = performance.now() / 1000;
    rows = data.workers.map((row) => withRates(row, before?.rows, now - (before?.at ?? now)));
    before = { at: now, rows: new Map(data.workers.map((row) => [row.worker, row])) };
    answer = data;
  };
  const machine = (host) => {
    const some = rows.filter((row) => row.host === host);
    const sum = (of) => some.reduce((total, row) => total + (of(row) ?? 0), 0);
    const said = `${format.several(some.length, "worker")}, ${format.several(
      sum((row) => row.connections),
      "connection",
    )}, ${format.rate(sum((row) => row.rates?.deliveries))} delivered, ${format.percent(sum((row) => row.rates?.cpu))} CPU, ${format.bytes(sum((row) => row.memory))}`;
    return h(
      "section",
      { class: "panel", "data-key": host },
      h("h2", {}, host, " ", muted(said)),
      table(`Workers of ${host}`, COLUMNS, some, (row) => String(row.worker)),
    );
  };
  const silent = () =>
    answer.silent.length
      ? h(
          "div",
          { class: "box lag" },
          h("p", { class: "box-title" }, `Worker ${answer.silent.join(", ")} does not answer`),
          h(
            "p",
            {},
            "What is told here is without it. Its log says why; the supervisor starts it again where it has ended.",
          ),
        )
      : null;
  const backbone = () =>
    answer.backbone
      ? h(
          "section",
          { class: "panel" },
          h("h2", {}, "Backbone"),
          facts(
            ["Server", h("code", {}, answer.backbone.url)],
            ["State", stateBadge(answer.backbone.state), answer.backbone.why ? [" ", muted(answer.backbone.why)] : ""],
          ),
        )
      : null;
  const render = () => {
    if (rows === null) return page.show(failed ? failure(failed) : empty("…"));
    const hosts = [...new Set(rows.map((row) => row.host))];
    return page.show(failed ? failure(failed) : null, silent(), hosts.map(machine), backbone());
  };
  const asked = poll(
    (signal) => get("workers", {}, signal),
    EVERY_MS,
    (data, error) => {
      failed = error;
      if (data) take(data);
      render();
    },
  );
  page.tools(null, null);
  render();
  return { close: () => asked.close() };
};
