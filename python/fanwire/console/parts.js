// What views are made of: tables, labels, notes, dialogs.

import { h } from "./dom.js";

/** A place in the console: `#/clients?channel=odds:7`. */
export const hash = (view, query = {}) => {
  const encoded = (text) =>
    encodeURIComponent(text).replaceAll("%3A", ":").replaceAll("%2F", "/").replaceAll("%40", "@");
  const given = Object.entries(query).filter(
    ([, value]) => value !== null && value !== undefined && value !== "" && value !== false,
  );
  const pairs = given.map(([name, value]) => `${name}=${encoded(String(value))}`);
  return `#/${view}${pairs.length ? `?${pairs.join("&")}` : ""}`;
};

export const link = (text, view, query = {}, properties = {}) =>
  h("a", { href: hash(view, query), ...properties }, text);

/** A word on a coloured ground; tones are ok, info, warn, bad and quiet. */
export const badge = (text, tone = "quiet", title = null) => h("span", { class: `badge ${tone}`, title }, text);

export const button = (text, action, properties = {}) =>
  h("button", { type: "button", "data-do": action, ...properties }, text);

export const muted = (...children) => h("span", { class: "muted" }, children);

/** What stands where there is nothing: what that means, and what to do. */
export const empty = (title, ...children) =>
  h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), h("p", {}, children));

const ADVICE = {
  unreachable: "Is the hub still running? This page asks again by itself.",
  no_token: "Give the token of [admin] in the hub's file.",
  wrong_token: "Give the token of [admin] in the hub's file.",
  foreign_origin: "Open the console at the admin side's own address, or name this one in admin.origins.",
  foreign_host: "Open the console by an address such as 127.0.0.1, or set admin.token.",
  slowed_down: "Too many wrong tokens were sent. Wait a second.",
  busy: "Many ask at once. This page asks again by itself.",
  bad_cursor: "This page of the list is no more: go to its beginning.",
  apart: "This worker has lost the others. See Workers.",
  stopped: "The hub stops.",
};

/** What was refused, and what to do. */
export const failure = (error) =>
  h(
    "div",
    { class: "empty failed", role: "alert" },
    h("p", { class: "empty-title" }, error.message),
    h("p", {}, ADVICE[error.code] ?? ""),
  );

/**
 * A table. A column has `label`, `cell(row)`, and may have `number` (right-aligned), `rank` (2 and 3 are left out where
 * there is little room), `title` and `sort`: a name by which `sorted` can be chosen.
 */
export const table = (label, columns, rows, key, { sorted = null, keep = {}, view = null, chosen = null } = {}) => {
  const classes = (column) =>
    [column.number ? "number" : "", column.rank ? `rank-${column.rank}` : "", column.class ?? ""].join(" ").trim() ||
    null;
  const head = columns.map((column) => {
    const isSorted = column.sort && column.sort === sorted;
    const text = column.sort
      ? link([column.label, h("span", { class: "arrow", "aria-hidden": "true" }, isSorted ? " ↓" : "")], view, {
          ...keep,
          sort: column.sort,
        })
      : column.label;
    return h(
      "th",
      { scope: "col", class: classes(column), title: column.title, "aria-sort": isSorted ? "descending" : null },
      text,
    );
  });
  const body = rows.map((row) =>
    h(
      "tr",
      { "data-key": key(row), class: chosen !== null && chosen === key(row) ? "chosen" : null },
      columns.map((column) => h("td", { class: classes(column) }, column.cell(row))),
    ),
  );
  return h(
    "div",
    { class: "table-box", tabindex: "-1" },
    h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
};

/** Links to the first and the next page of a list, whose other terms stay; null where there is one page. */
export const pager = (view, kept, after, next) =>
  next || after
    ? h(
        "nav",
        { class: "pages", "aria-label": "Pages" },
        after ? link("First page", view, kept) : null,
        next ? link("Next page", view, { ...kept, after: next }, { rel: "next" }) : null,
      )
    : null;

/** Names and values, one under another. */
export const facts = (...pairs) =>
  h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, ...value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );

/** A select with these choices, as pairs of a value and a text. */
export const select = (properties, choices, value) => {
  const made = h(
    "select",
    properties,
    choices.map(([one, text]) => h("option", { value: one }, text)),
  );
  made.value = value;
  return made;
};

const SHOWN = 4000; // characters of one message

/** Data as text: JSON as it is written, bytes in base64; the beginning of what is long. */
export const dataText = (data) => {
  const isObject = data !== null && typeof data === "object";
  const isBytes = isObject && typeof data.base64 === "string" && Object.keys(data).length === 1;
  const text = typeof data === "string" ? data : isBytes ? `bytes, base64: ${data.base64}` : JSON.stringify(data);
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}… (${text.length} characters)`;
};

/** Asks in a dialog; gives the form's values, or null. */
export const ask = (title, body, { act, isDanger = false, refuse = "Cancel" }) =>
  new Promise((resolve) => {
    const yes = h("button", { type: "submit", class: isDanger ? "danger" : "primary" }, act);
    const no = refuse && h("button", { type: "button", onclick: () => dialog.close() }, refuse);
    const form = h(
      "form",
      {},
      h("h2", { id: "dialog-title" }, title),
      body,
      h("div", { class: "dialog-ends" }, no, yes),
    );
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    let values = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      values = Object.fromEntries(new FormData(form));
      dialog.close();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(values);
    });
    document.body.append(dialog);
    dialog.showModal();
  });

/** Says for a while what was done. */
export const notify = (text, tone = "ok") => {
  const toast = h("div", { class: `toast ${tone}` }, text);
  document.querySelector("#toasts").append(toast);
  setTimeout(() => toast.remove(), 6000);
};
