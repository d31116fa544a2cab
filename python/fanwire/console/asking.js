// The two dialogs of the page itself: the token, and the keys.

import { h } from "./dom.js";
import { ask } from "./parts.js";

const KEYS = [
  ["g o", "Overview"],
  ["g c", "Channels"],
  ["g l", "Clients"],
  ["g r", "Relay"],
  ["g w", "Workers"],
  ["g s", "Settings"],
  ["g t", "Log"],
  ["/", "Search"],
  ["j k", "Along rows"],
  ["Esc", "Close"],
  ["?", "These keys"],
];

let isAsking = false;

/** Asks for the token until one is given, and hands it to `use`. */
export const askToken = async (isWrong, use) => {
  if (isAsking) return;
  isAsking = true;
  const body = [
    h(
      "p",
      { class: isWrong ? "bad" : "muted", role: isWrong ? "alert" : null },
      isWrong
        ? "That is not the token. Try once more."
        : "The hub's file has it: token in [admin]. It stays in this tab, until that is closed.",
    ),
    h(
      "label",
      { class: "line" },
      h("span", {}, "Token"),
      h("input", {
        name: "token",
        type: "password",
        required: true,
        autocomplete: "off",
        autofocus: true,
        minlength: 16,
        maxlength: 256,
      }),
    ),
  ];
  let values = null;
  while (values === null) values = await ask("This admin side wants a token", body, { act: "Go on", refuse: null });
  isAsking = false;
  use(values.token.trim());
};

/** Says which keys there are. */
export const showKeys = () => {
  const rows = KEYS.map(([key, what]) =>
    h(
      "div",
      {},
      h(
        "dt",
        {},
        key.split(" ").map((one) => h("kbd", {}, one)),
      ),
      h("dd", {}, what),
    ),
  );
  return ask("Keys", h("dl", { class: "keys" }, rows), { act: "Close", refuse: null });
};
