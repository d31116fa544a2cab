// Who is connected, who lags and why, and how to be rid of one.

import { get, post } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { ask, badge, button, empty, facts, failure, link, muted, notify, pager, select, table } from "../parts.js";
import { poll } from "../poll.js";
import { advice, lagText, whyBadge } from "../why.js";

const EVERY_MS = 2000;
const PAGE = 100;
const PAGES_MAX = 20; // that are asked for until one row is found
const ID = /^(?:\d{1,9}:)?c\d+@\d+(?:\/\d+)?$/;
const FIELDS = [
  ["user", "User"],
  ["channel", "Channel"],
  ["path", "Path"],
  ["client", "Client id"],
];
const HINTS = { user: "a user's name, whole", channel: "a channel's name", path: "/ws", client: "0:c17@2" };
const SORTS = [
  ["", "in their order"],
  ["lag", "lag, seconds"],
  ["lag_bytes", "lag, bytes"],
  ["waiting", "waiting bytes"],
  ["sent", "sent bytes"],
];
const CODES = [
  ["1008", "1008 · policy (it should not come back)"],
  ["1001", "1001 · going away (it may come back)"],
  ["1013", "1013 · try again later"],
];

const COLUMNS = (keep) => [
  { label: "Client", cell: (row) => link(row.client, "clients", { ...keep, client: row.client }) },
  { label: "User", cell: (row) => row.user ?? muted("anonymous"), class: "name" },
  {
    label: "Lag",
    cell: (row) => (row.lag ? lagText(row.lag) : muted("–")),
    number: true,
    sort: "lag",
    title: "Seconds, and publications",
  },
  { label: "Why", cell: (row) => (row.lag ? whyBadge(row.lag) : "") },
  { label: "Channels", cell: channelsOf, rank: 2, class: "name" },
  { label: "Address", cell: (row) => row.address, rank: 2 },
  { label: "Transport", cell: (row) => [row.transport.replace("_", " "), " ", muted(row.protocol)], rank: 3 },
  { label: "Sent", cell: (row) => format.bytes(row.sent_bytes), number: true, sort: "sent", rank: 2 },
  {
    label: "Waiting",
    cell: (row) => format.bytes(row.waiting_bytes),
    number: true,
    sort: "waiting",
    rank: 3,
    title: "Private bytes that wait for its socket",
  },
  { label: "RTT", cell: (row) => format.duration(row.rtt), number: true, rank: 3 },
  {
    label: "",
    cell: (row) =>
      button("Disconnect", "disconnect", {
        class: "small danger-quiet",
        "data-client": row.client,
        "data-user": row.user,
        "aria-label": `Disconnect ${row.client}`,
      }),
    class: "acts",
    rank: 2,
  },
];

const channelsOf = (row) => {
  const [first] = row.channels;
  const rest = row.channels_count - 1;
  return first === undefined ? muted("none") : [first, rest > 0 ? [" ", muted(`+${format.count(rest)}`)] : ""];
};

export const open = (page) => {
  let query = {};
  let list = null; // what is shown: rows, next
  let listError = null;
  let client = null; // that of the drawer
  let clientError = null;
  let polls = [];

  const field = select({ "aria-label": "Search by", id: "by" }, FIELDS, "user");
  const search = h("input", {
    type: "search",
    "aria-label": "Search clients",
    placeholder: HINTS.user,
    maxlength: 255,
    spellcheck: "false",
    autocomplete: "off",
  });
  const lagging = h("input", { type: "checkbox" });
  const sort = select({ "aria-label": "Sort by" }, SORTS, "");
  const find = (event) => {
    event?.preventDefault();
    const text = search.value.trim();
    const by = ID.test(text) ? "client" : field.value;
    const found = text ? { [by]: text } : {};
    page.go("clients", { ...found, lagging: lagging.checked, sort: sort.value });
  };
  field.addEventListener("change", () => {
    search.placeholder = HINTS[field.value];
    if (search.value) find();
  });
  lagging.addEventListener("change", () => {
    if (lagging.checked && !sort.value) sort.value = "lag";
    find();
  });
  sort.addEventListener("change", find);
  search.addEventListener("search", () => search.value === "" && find());
  const form = h(
    "form",
    { class: "tools", role: "search", onsubmit: find },
    h("span", { class: "joined" }, field, search),
    h("label", { class: "check" }, lagging, "Lagging only"),
    h("label", {}, h("span", { class: "muted" }, "Sort by "), sort),
  );
  page.tools(form, search);

  const filters = () => ({
    user: query.user,
    channel: query.channel,
    path: query.path,
    lagging: query.lagging,
    sort: query.sort,
  });

  const load = async (signal) => {
    const asked = { ...filters(), lagging: query.lagging === "true" || null, limit: PAGE };
    let after = query.after;
    for (let pages = 1; ; pages += 1) {
      const found = await get("clients", { ...asked, after }, signal);
      if (found.clients.length || !found.next || pages === PAGES_MAX) return found;
      after = found.next;
    }
  };

  const said = () => {
    const parts = [
      query.user && `user ${query.user}`,
      query.channel && `channel ${query.channel}`,
      query.path && `path ${query.path}`,
    ].filter(Boolean);
    return [query.lagging === "true" ? "lagging " : "", "clients", parts.length ? ` of ${parts.join(", ")}` : ""].join(
      "",
    );
  };

  const summary = () => {
    const stats = page.readings.latest;
    const isFiltered = query.user || query.channel || query.path || query.lagging || query.after;
    return h(
      "p",
      { class: "summary" },
      list
        ? `${format.count(list.clients.length)}${list.next ? " of more" : query.sort && list.clients.length === PAGE ? ` (the first by ${query.sort.replace("_", " ")})` : ""} ${said()}`
        : "…",
      stats ? muted(` · ${format.count(stats.connections)} connected`) : "",
      stats?.lagging && query.lagging !== "true"
        ? [
            " · ",
            link(
              `${format.count(stats.lagging)} lag`,
              "clients",
              { lagging: true, sort: "lag" },
              { class: "warn-text" },
            ),
          ]
        : "",
      isFiltered ? [" · ", link("show all", "clients")] : "",
    );
  };

  const nothing = () => {
    if (list.next)
      return empty(
        "None among those looked at",
        "There are more clients: ",
        link("look further", "clients", { ...filters(), after: list.next }),
        ".",
      );
    if (query.lagging === "true")
      return empty(
        "Everybody keeps up",
        "No client that fits lags. ",
        link("Show all clients", "clients", { ...filters(), lagging: null, sort: null }),
        ".",
      );
    if (query.user || query.channel || query.path)
      return empty(
        `No ${said()}`,
        "Names have to be whole, and as they are written. ",
        link("Show all clients", "clients"),
        ".",
      );
    return empty("Nobody is connected", "Clients are here as soon as they connect to the hub's own address.");
  };

  const render = () => {
    const pages = pager("clients", filters(), query.after, list?.next);
    page.show(
      summary(),
      listError ? failure(listError) : null,
      list === null
        ? null
        : list.clients.length
          ? table("Clients", COLUMNS({ ...filters(), after: query.after }), list.clients, (row) => row.client, {
              sorted: query.sort,
              keep: { ...filters(), after: null },
              view: "clients",
              chosen: query.client ?? null,
            })
          : listError
            ? null
            : nothing(),
      pages,
    );
  };

  const lagPart = (lag) =>
    lag === null
      ? h(
          "div",
          { class: "box ok" },
          h("p", { class: "box-title" }, "Keeps up"),
          h("p", {}, "It has got all that was published."),
        )
      : h(
          "div",
          { class: "box lag" },
          h("p", { class: "box-title" }, format.duration(lag.seconds), " behind ", whyBadge(lag)),
          h(
            "p",
            {},
            lag.channel ? [link(lag.channel, "channels", { channel: lag.channel }), ": "] : "",
            `${format.several(lag.publications, "publication")}, ${format.bytes(lag.bytes)}`,
          ),
          h("p", { class: "why" }, `${lag.text.charAt(0).toUpperCase()}${lag.text.slice(1)}.`),
          h("p", { class: "muted" }, advice(lag)),
        );

  const renderClient = () => {
    if (!query.client) return page.drawer(null);
    if (clientError?.code === "no_such_client") {
      return page.drawer(
        query.client,
        empty("It is gone", "No client of this name is connected any more. When it comes back it has another name."),
      );
    }
    if (clientError) return page.drawer(query.client, failure(clientError));
    if (client === null || client.client !== query.client) return page.drawer(query.client, empty("…"));
    const { channels } = client;
    return page.drawer(
      query.client,
      lagPart(client.lag),
      h(
        "p",
        { class: "acts-line" },
        button("Disconnect…", "disconnect", {
          class: "danger",
          "data-client": client.client,
          "data-user": client.user,
        }),
        client.user === null ? null : button("Disconnect the user…", "disconnect-user", { "data-user": client.user }),
      ),
      facts(
        ["User", client.user === null ? muted("anonymous") : link(client.user, "clients", { user: client.user })],
        ["Address", client.address],
        ["Path", client.path ?? "–"],
        ["Transport", client.transport.replace("_", " "), " ", badge(client.protocol)],
        client.connection_id !== null && ["Connection id", h("code", {}, client.connection_id)],
        ["Connected", client.since === null ? "–" : `${format.since(client.since)} ago`],
        ["Worker", link(client.worker, "workers")],
        ["Sent", format.bytes(client.sent_bytes), " ", muted("acknowledged by its kernel")],
        ["Waiting", format.bytes(client.waiting_bytes), " ", muted("private")],
        ["Pending", format.count(client.pending), " ", muted("messages of it")],
        ["Round trip", format.duration(client.rtt)],
      ),
      h("h3", {}, format.several(client.channels_count, "channel")),
      channels.length
        ? h(
            "ul",
            { class: "names" },
            channels.map((name) => h("li", {}, link(name, "channels", { channel: name }))),
          )
        : h("p", { class: "muted" }, "It watches none."),
      client.channels_count > channels.length
        ? h("p", { class: "muted" }, `and ${format.count(client.channels_count - channels.length)} more`)
        : null,
    );
  };

  const disconnect = async (whom, title, text) => {
    const body = [
      h("p", {}, text),
      h("label", { class: "line" }, h("span", {}, "Close code"), select({ name: "code" }, CODES, "1008")),
      h(
        "label",
        { class: "line" },
        h("span", {}, "Reason, which it is told"),
        h("input", { name: "reason", maxlength: 100, autocomplete: "off", placeholder: "none" }),
      ),
    ];
    const values = await ask(title, body, { act: "Disconnect", isDanger: true });
    if (values === null) return;
    try {
      const { closed } = await post("disconnect", { ...whom, code: Number(values.code), reason: values.reason });
      const name = whom.client ?? whom.user;
      notify(
        whom.client
          ? `${name} is disconnected`
          : closed === null
            ? `${name} is disconnected everywhere`
            : `${format.several(closed, "connection")} of ${name} closed`,
      );
    } catch (error) {
      notify(error.message, "bad");
    }
    polls.forEach((one) => one.again());
  };
  page.actions({
    disconnect: ({ client: name, user }) =>
      disconnect(
        { client: name },
        `Disconnect ${name}?`,
        user
          ? `It is a connection of ${user}. The others of that user stay.`
          : "Its connection is closed. It may connect again.",
      ),
    "disconnect-user": ({ user }) =>
      disconnect({ user }, `Disconnect ${user}?`, "All connections of this user are closed, on all workers."),
    close: () => page.go("clients", { ...filters(), after: query.after }),
  });

  const changed = (next) => {
    const isSameList =
      list !== null &&
      ["user", "channel", "path", "lagging", "sort", "after"].every((name) => query[name] === next[name]);
    query = next;
    const by =
      FIELDS.map(([name]) => name).find((name) => name !== "client" && query[name]) ??
      (query.client && field.value === "client" ? "client" : null);
    if (by) field.value = by;
    search.value = (by && query[by]) ?? "";
    search.placeholder = HINTS[field.value];
    lagging.checked = query.lagging === "true";
    sort.value = query.sort ?? "";
    polls.forEach((one) => one.close());
    if (!isSameList) list = listError = null;
    client = clientError = null;
    polls = [
      poll(load, EVERY_MS, (data, error) => {
        listError = error;
        list = data ?? (error?.code === "unreachable" ? list : null);
        render();
      }),
    ];
    if (query.client) {
      polls.push(
        poll(
          (signal) => get("client", { client: query.client }, signal),
          EVERY_MS,
          (data, error) => {
            client = data;
            clientError = error;
            renderClient();
          },
        ),
      );
    }
    render();
    renderClient();
  };
  return { changed, close: () => polls.forEach((one) => one.close()) };
};
