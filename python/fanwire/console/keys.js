// The keyboard: g and a letter goes to a view, / searches, j and k go along rows, Esc closes, ? tells all this.

const isTyping = (target) => target.closest("input:not([type=radio], [type=checkbox]), textarea, select") !== null;

const alongRows = (step) => {
  const links = [...document.querySelectorAll("#content tbody tr td:first-child a")];
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, at + step))].focus();
};

export const watchKeys = ({ go, views, search, close, help }) => {
  let isGoing = false;
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]"))
      return;
    if (isTyping(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const wasGoing = isGoing;
    isGoing = event.key === "g" && !wasGoing;
    const keys = {
      "/": () => search()?.focus(),
      Escape: close,
      "?": help,
      j: () => alongRows(1),
      k: () => alongRows(-1),
    };
    const act = wasGoing
      ? views[event.key] && (() => go(views[event.key]))
      : Object.hasOwn(keys, event.key) && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  document.addEventListener("keydown", press);
};
