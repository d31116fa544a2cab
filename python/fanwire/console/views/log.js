// The log of the worker that answers, from now on.

import { follow } from "../api.js";
import { calm, h } from "../dom.js";
import * as format from "../format.js";
import { badge, empty, failure, muted, select } from "../parts.js";

const LINES = 500;
const LEVELS = ["debug", "info", "warning", "error", "critical"];
const TONES = { debug: "quiet", info: "quiet", warning: "warn", error: "bad", critical: "bad" };

export const open = (page) => {
  let lines = [];
  let waiting = []; // while it is paused
  let isPaused = false;
  let failed = null;
  let count = 0;
  const search = h("input", {
    type: "search",
    "aria-label": "Search the log",
    placeholder: "a part of a line",
    autocomplete: "off",
    spellcheck: "false",
  });
  const least = select(
    { "aria-label": "Least level" },
    LEVELS.map((one) => [one, one]),
    "debug",
  );
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const line = (one) =>
    h(
      "li",
      { "data-key": one.number, class: TONES[one.level] ?? "quiet" },
      h("time", { class: "muted" }, format.clock(one.at)),
      badge(one.level, TONES[one.level] ?? "quiet"),
      h("span", { class: "logger muted" }, one.logger),
      h("span", { class: "text" }, one.text),
    );
  const render = () => {
    const text = search.value.trim().toLowerCase();
    const level = LEVELS.indexOf(least.value);
    const shown = lines.filter(
      (one) => LEVELS.indexOf(one.level) >= level && `${one.logger} ${one.text}`.toLowerCase().includes(text),
    );
    page.show(
      failed
        ? failure(failed)
        : h(
            "p",
            { class: "summary" },
            isPaused ? `paused, ${format.several(waiting.length, "line")} since` : "as it comes",
            muted(" · of the worker that answers; what was before stands in its log"),
          ),
      shown.length
        ? h("ol", { class: "log" }, shown.map(line))
        : failed
          ? null
          : empty(
              lines.length ? "No line fits" : "Quiet",
              "Lines of the log are here as they come. The level of Python's logger “fanwire” says which there are.",
            ),
    );
  };
  const renderSoon = calm(render);
  const unfollow = follow(
    "log",
    (event, told) => {
      if (event !== "log") return;
      const one = { ...told, number: (count += 1) };
      if (isPaused) waiting = [one, ...waiting].slice(0, LINES);
      else lines = [one, ...lines].slice(0, LINES);
      renderSoon();
    },
    (error) => {
      failed = error;
      render();
    },
  );
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(isPaused));
    if (!isPaused) {
      lines = [...waiting, ...lines].slice(0, LINES);
      waiting = [];
    }
    render();
  });
  search.addEventListener("input", render);
  least.addEventListener("change", render);
  page.tools(
    h(
      "form",
      { class: "tools", role: "search", onsubmit: (event) => event.preventDefault() },
      search,
      h("label", {}, h("span", { class: "muted" }, "From "), least),
      pause,
    ),
    search,
  );
  render();
  return { close: unfollow };
};
