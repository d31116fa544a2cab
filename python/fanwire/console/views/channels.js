// Channels: what each costs and holds; of one its last messages as they come, who is in it, and a test publish.

import { follow, get, post } from "../api.js";
import { calm, h } from "../dom.js";
import * as format from "../format.js";
import { badge, button, dataText, empty, facts, failure, link, muted, notify, pager, select, table } from "../parts.js";
import { poll } from "../poll.js";

const EVERY_MS = 2000;
const PAGE = 100;
const MESSAGES = 50;
const USERS = 100;
const SORTS = [
  ["subscribers", "subscribers"],
  ["deliveries", "deliveries"],
  ["rate", "rate"],
  ["backlog", "backlog"],
  ["all", "in their order"],
];

const COLUMNS = (keep) => [
  { label: "Channel", cell: (row) => link(row.channel, "channels", { ...keep, channel: row.channel }), class: "name" },
  { label: "Subscribers", cell: (row) => format.count(row.subscribers), number: true, sort: "subscribers" },
  { label: "Rate", cell: (row) => format.rate(row.rate), number: true, sort: "rate", title: "Publications a second" },
  {
    label: "Deliveries",
    cell: (row) => format.rate(row.deliveries),
    number: true,
    sort: "deliveries",
    rank: 2,
    title: "Rate times subscribers: what it costs",
  },
  {
    label: "Backlog",
    cell: (row) =>
      row.backlog ? [format.bytes(row.backlog_bytes), " ", muted(`· ${format.count(row.backlog)}`)] : muted("–"),
    number: true,
    sort: "backlog",
    title: "What its log holds for clients that lag",
  },
  {
    label: "Kept",
    cell: (row) => (row.kept ? [format.bytes(row.kept_bytes), " ", muted(`· ${format.count(row.kept)}`)] : muted("–")),
    number: true,
    rank: 3,
    title: "History, for who comes or returns",
  },
  {
    label: "Newest",
    cell: (row) => (row.idle === null ? muted("never") : row.idle === 0 ? "now" : `${format.duration(row.idle)} ago`),
    number: true,
    rank: 3,
  },
  { label: "Policy", cell: (row) => badge(row.policy), rank: 2 },
  { label: "Pattern", cell: (row) => row.pattern ?? muted("–"), rank: 3, class: "name" },
];

export const open = (page) => {
  let query = {};
  let list = null;
  let listError = null;
  let channel = null;
  let channelError = null;
  let users = null;
  let before = null; // what the drawer's channel had published, and when
  let messages = [];
  let live = undefined; // null while it is followed, else why not
  let polls = [];
  let unfollow = () => {};

  const search = h("input", {
    type: "search",
    "aria-label": "Search channels",
    placeholder: "odds, or a pattern: odds:*",
    maxlength: 250,
    spellcheck: "false",
    autocomplete: "off",
  });
  const sort = select({ "aria-label": "Sort by" }, SORTS, "subscribers");
  const find = (event) => {
    event?.preventDefault();
    const sorted = sort.value === "subscribers" ? null : sort.value;
    page.go("channels", { match: search.value.trim(), sort: sorted });
  };
  sort.addEventListener("change", find);
  search.addEventListener("search", () => search.value === "" && find());
  page.tools(
    h(
      "form",
      { class: "tools", role: "search", onsubmit: find },
      search,
      h("label", {}, h("span", { class: "muted" }, "Sort by "), sort),
    ),
    search,
  );

  const sorted = () => query.sort ?? "subscribers";
  const filters = () => ({ match: query.match, sort: query.sort });
  const pattern = (text) => (!text || text.includes("*") ? text : `*${text}*`);
  const load = (signal) =>
    get(
      "channels",
      { match: pattern(query.match), sort: sorted() === "all" ? null : sorted(), limit: PAGE, after: query.after },
      signal,
    );

  const render = () => {
    const rows = list?.channels ?? [];
    const all = page.readings.latest?.channels;
    const pages = pager("channels", filters(), query.after, list?.next);
    const nothing = () =>
      query.match
        ? empty(`No channel is like ${pattern(query.match)}`, link("Show all channels", "channels"), ".")
        : empty("No channel yet", "A channel is there once somebody subscribes or publishes.");
    page.show(
      h(
        "p",
        { class: "summary" },
        list
          ? `${format.several(rows.length, "channel")}${rows.length === PAGE && !list.next ? " (the first)" : ""}`
          : "…",
        all === undefined ? "" : muted(` · ${format.count(all)} in all`),
        query.match ? [" · ", link("show all", "channels")] : "",
      ),
      listError ? failure(listError) : null,
      rows.length
        ? table("Channels", COLUMNS({ ...filters(), after: query.after }), rows, (row) => row.channel, {
            sorted: sorted(),
            keep: { match: query.match },
            view: "channels",
            chosen: query.channel ?? null,
          })
        : list
          ? nothing()
          : null,
      pages,
    );
  };

  const numbers = () => {
    if (channelError?.code === "no_such_channel")
      return empty("It is not there now", "Nobody is subscribed, and nothing is kept. A publication makes it.");
    if (channelError) return failure(channelError);
    if (channel === null) return empty("…");
    return [
      h(
        "p",
        { class: "acts-line" },
        link(
          format.several(channel.subscribers, "subscriber"),
          "clients",
          { channel: channel.channel },
          { class: "act" },
        ),
        link("who of them lags", "clients", { channel: channel.channel, lagging: true, sort: "lag" }, { class: "act" }),
      ),
      facts(
        ["Rate", format.rate(channel.rate), " ", muted(`${format.rate(channel.deliveries)} delivered`)],
        [
          "Published",
          format.count(channel.published),
          " ",
          muted(channel.idle === null ? "" : `newest ${format.duration(channel.idle)} ago`),
        ],
        [
          "Policy",
          badge(channel.policy),
          " ",
          muted(channel.pattern === null ? "by default" : `by ${channel.pattern}`),
        ],
        [
          "Backlog",
          `${format.bytes(channel.backlog_bytes)}, ${format.count(channel.backlog)}`,
          " ",
          muted("for who lags"),
        ],
        ["Unsent", format.bytes(channel.unsent_bytes), " ", muted("by the slowest shard")],
        ["Kept", `${format.bytes(channel.kept_bytes)}, ${format.count(channel.kept)}`],
        ["Position", h("code", {}, channel.position)],
        ["Workers", channel.workers.join(", ")],
      ),
    ];
  };

  const presence = () => {
    if (!users) return null;
    const names = users.users.slice(0, USERS);
    return [
      h("h3", {}, `${format.several(users.count, "user")} here`),
      h(
        "ul",
        { class: "names" },
        names.map((name) => h("li", {}, link(name, "clients", { user: name }))),
      ),
      users.count > names.length
        ? h("p", { class: "muted" }, `and ${format.count(users.count - names.length)} more`)
        : null,
    ];
  };

  const message = (one) =>
    h(
      "li",
      { "data-key": one.position, title: one.position },
      h(
        "span",
        { class: "muted" },
        format.clock(one.at),
        one.event ? [" ", badge(one.event)] : "",
        one.keyframe ? [" ", badge("keyframe", "info")] : "",
      ),
      h("code", {}, dataText(one.data)),
    );

  // Made once for each channel: what is typed there stays.
  const publisher = () => {
    const data = h("textarea", {
      name: "data",
      rows: 3,
      spellcheck: "false",
      "aria-label": "Data",
      placeholder: '{"home": 1.85}',
    });
    return h(
      "form",
      { class: "publish", "data-do": "publish", "data-kept": "", "data-key": `publish ${query.channel}` },
      data,
      h(
        "span",
        { class: "publish-line" },
        select(
          { name: "kind", "aria-label": "Sent as" },
          [
            ["json", "JSON"],
            ["text", "text"],
          ],
          "json",
        ),
        h("input", {
          name: "event",
          placeholder: "event (none)",
          "aria-label": "Event",
          maxlength: 255,
          autocomplete: "off",
        }),
        h("button", { type: "submit", class: "primary" }, "Publish"),
      ),
    );
  };

  const renderChannel = () => {
    if (!query.channel) return page.drawer(null);
    return page.drawer(
      query.channel,
      numbers(),
      h("h3", {}, "Publish a test"),
      publisher(),
      h(
        "h3",
        {},
        "Last messages ",
        live === null ? badge("live", "ok") : live ? badge("not live", "warn", live.message) : null,
      ),
      messages.length
        ? h("ol", { class: "messages" }, messages.map(message))
        : h("p", { class: "muted" }, "None is kept. What is published now comes here."),
      presence(),
    );
  };

  const publish = async (form) => {
    const { data, kind, event } = Object.fromEntries(new FormData(form));
    let body = data;
    if (kind === "json") {
      try {
        body = JSON.parse(data);
      } catch (error) {
        notify(`This is no JSON: ${error.message}`, "bad");
        return;
      }
    }
    try {
      const said = { channel: query.channel, data: body, ...(event ? { event } : {}) };
      const { position } = await post("publish", said, { "Idempotency-Key": newKey() });
      notify(`Published at ${position}`);
    } catch (error) {
      notify(error.message, "bad");
    }
    polls.forEach((one) => one.again());
  };
  page.actions({
    publish: (dataset, form) => publish(form),
    close: () => page.go("channels", { ...filters(), after: query.after }),
  });

  const renderSoon = calm(() => renderChannel());
  // The API tells a rate since somebody asked last, which may have been the list just now.
  const withRate = (row) => {
    const now = performance.now() / 1000;
    const isLater = before !== null && before.name === row.channel && before.published <= row.published;
    const rate = row.rate ?? (isLater ? (row.published - before.published) / (now - before.at) : null);
    before = { name: row.channel, published: row.published, at: now };
    return { ...row, rate, deliveries: rate === null ? null : rate * row.subscribers };
  };
  const hear = (told) => {
    messages = [told, ...messages.filter((one) => one.position !== told.position)].slice(0, MESSAGES);
    renderSoon();
  };
  const loadMessages = async (name) => {
    try {
      const { publications } = await get("history", { channel: name, limit: MESSAGES });
      if (name !== query.channel) return;
      const known = new Set(messages.map((one) => one.position));
      messages = [...messages, ...publications.reverse().filter((one) => !known.has(one.position))].slice(0, MESSAGES);
      renderChannel();
    } catch {
      // Its numbers say what is wrong; without history what comes is shown all the same.
    }
  };

  const changed = (next) => {
    const isSameList = list !== null && ["match", "sort", "after"].every((name) => query[name] === next[name]);
    query = next;
    search.value = query.match ?? "";
    sort.value = sorted();
    polls.forEach((one) => one.close());
    unfollow();
    unfollow = () => {};
    if (!isSameList) list = listError = null;
    channel = channelError = users = null;
    messages = [];
    live = undefined;
    polls = [
      poll(load, EVERY_MS, (data, error) => {
        listError = error;
        list = data ?? (error?.code === "unreachable" ? list : null);
        render();
      }),
    ];
    if (query.channel) {
      const name = query.channel;
      const loadOne = async (signal) => {
        const row = await get("channel", { channel: name }, signal);
        return [withRate(row), row.presence ? await get("presence", { channel: name }, signal) : null];
      };
      polls.push(
        poll(loadOne, EVERY_MS, (data, error) => {
          channelError = error;
          [channel, users] = data ?? [null, null];
          renderChannel();
        }),
      );
      loadMessages(name);
      unfollow = follow(
        `tail:${name}`,
        (event, told) => event === "publication" && hear(told),
        (error) => {
          live = error;
          renderChannel();
        },
      );
    }
    render();
    renderChannel();
  };
  return {
    changed,
    close: () => {
      polls.forEach((one) => one.close());
      unfollow();
    },
  };
};

// crypto.randomUUID is there on secure origins alone.
const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
