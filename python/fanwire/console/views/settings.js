// Settings: each with its value and where that is from.

import { get } from "../api.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { badge, empty, failure, muted, table } from "../parts.js";

const COLUMNS = [
  {
    label: "Setting",
    cell: (row) =>
      h(
        "code",
        {},
        row.key.split(/(?<=[._])/).map((part) => [part, h("wbr")]),
      ),
    class: "name",
  },
  {
    label: "Value",
    cell: (row) =>
      row.value === "" ? muted("none") : h("code", { class: row.source === "default" ? "muted" : "set" }, row.value),
    class: "name",
  },
  { label: "From", cell: (row) => (row.source === "default" ? muted("default") : badge(row.source, "info")) },
];

export const open = (page) => {
  let settings = null;
  let failed = null;
  const asked = new AbortController();
  const search = h("input", {
    type: "search",
    "aria-label": "Search settings",
    placeholder: "a part of a name or value",
    autocomplete: "off",
    spellcheck: "false",
  });
  const isSet = h("input", { type: "checkbox" });
  const render = () => {
    if (settings === null) return page.show(failed ? failure(failed) : empty("…"));
    const text = search.value.trim().toLowerCase();
    const rows = settings.filter(
      (row) => (!isSet.checked || row.source !== "default") && `${row.key} ${row.value}`.toLowerCase().includes(text),
    );
    return page.show(
      h(
        "p",
        { class: "summary" },
        `${format.count(rows.length)} of ${format.several(settings.length, "setting")}`,
        muted(" · secrets are not told"),
      ),
      rows.length
        ? table("Settings", COLUMNS, rows, (row) => row.key)
        : empty(
            "No setting fits",
            isSet.checked ? "All have their defaults. " : "",
            "docs/settings.md has each, with its unit and range.",
          ),
    );
  };
  const find = () => page.go("settings", { search: search.value.trim(), set: isSet.checked }, { isQuiet: true });
  search.addEventListener("input", () => (find(), render()));
  isSet.addEventListener("change", () => (find(), render()));
  page.tools(
    h(
      "form",
      { class: "tools", role: "search", onsubmit: (event) => event.preventDefault() },
      search,
      h("label", { class: "check" }, isSet, "Set only"),
    ),
    search,
  );
  const load = async () => {
    try {
      ({ settings } = await get("settings", {}, asked.signal));
      failed = null;
    } catch (error) {
      if (asked.signal.aborted) return;
      failed = error;
    }
    render();
  };
  window.addEventListener("unlocked", load, { signal: asked.signal });
  load();
  return {
    changed: (query) => {
      search.value = query.search ?? "";
      isSet.checked = query.set === "true";
      render();
    },
    close: () => asked.abort(),
  };
};
