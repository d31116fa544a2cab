// Light or dark: as the system has it, or as was chosen here.

import { h } from "./dom.js";

const KEPT = "fanwire-theme";
const CHOICES = [
  ["", "Auto"],
  ["light", "Light"],
  ["dark", "Dark"],
];

const use = (choice) => {
  if (choice) document.documentElement.dataset.theme = choice;
  else delete document.documentElement.dataset.theme;
};

/** The switch. */
export const control = () => {
  const kept = localStorage.getItem(KEPT) ?? "";
  use(kept);
  const inputs = CHOICES.map(([choice, text]) => {
    const input = h("input", { type: "radio", name: "theme", value: choice, checked: choice === kept });
    input.addEventListener("change", () => {
      if (choice) localStorage.setItem(KEPT, choice);
      else localStorage.removeItem(KEPT);
      use(choice);
    });
    return h("label", {}, input, h("span", {}, text));
  });
  return h("fieldset", { class: "theme" }, h("legend", {}, "Theme"), inputs);
};
