// Elements are made by calls, and what comes from outside is only ever text in them: no markup is read anywhere.

const SVG = "http://www.w3.org/2000/svg";

const fill = (element, properties, children) => {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
};

/** An HTML element; of its properties a function is a listener (`onclick`), null and false are left out. */
export const h = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);

/** The same of SVG. */
export const s = (tag, properties = {}, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

const fits = (old, next) =>
  old.nodeType === next.nodeType && old.nodeName === next.nodeName && old.dataset?.key === next.dataset?.key;

/**
 * Makes `old` what `next` is, and touches only what differs: focus, selection and what was typed stay. Children with a
 * `data-key` are found by it. Listeners do not come over: what acts has `data-do`.
 */
export const morph = (old, next) => {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.dataset.kept !== undefined) return;
  const keyed = new Map();
  for (const child of old.children) if (child.dataset.key !== undefined) keyed.set(child.dataset.key, child);
  let at = old.firstChild;
  for (const wanted of [...next.childNodes]) {
    const key = wanted.dataset?.key;
    const found = key === undefined ? at : keyed.get(key);
    if (!found || !fits(found, wanted)) {
      old.insertBefore(wanted, at);
    } else {
      if (found === at) at = at.nextSibling;
      else old.insertBefore(found, at);
      morph(found, wanted);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
};

/** Makes these the children of `root`, as `morph` does. */
export const show = (root, ...children) => {
  const next = root.cloneNode(false);
  next.append(...children.flat(Infinity).filter(Boolean));
  morph(root, next);
};

const CALM_MS = 250;

/** A function that has `act` called soon, and once for many calls: what comes often is shown at an even pace. */
export const calm = (act) => {
  let timer = 0;
  return () => {
    timer ||= setTimeout(() => {
      timer = 0;
      act();
    }, CALM_MS);
  };
};
