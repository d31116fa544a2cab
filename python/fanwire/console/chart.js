// A small chart of the last minutes, in SVG.

import { s } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 56;

/** A round number that is no less. */
const roof = (most) => {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((one) => one * power).find((one) => one >= most * 1.05) ?? most * 1.05;
};

const number = (value) => value.toFixed(1);

/** A line of each of `names`, of which the first has its area filled; `hovered` is the time under the pointer, or null. */
export const chart = (readings, names, now, hovered, label) => {
  const lines = names.map((name) => readings.stretches(name));
  const most = lines.flat(2).reduce((top, [, value]) => Math.max(top, value), 0);
  const top = roof(most);
  const span = readings.span(now);
  const x = (time) => number(((time - now) / span) * WIDTH + WIDTH);
  const y = (value) => number(HEIGHT - 1 - (value / top) * (HEIGHT - 4));
  const path = (stretch) => `M${stretch.map(([time, value]) => `${x(time)} ${y(value)}`).join("L")}`;
  const drawn = [];
  for (const at of [1 / 3, 2 / 3]) {
    drawn.push(s("line", { class: "grid", x1: number(at * WIDTH), x2: number(at * WIDTH), y1: 0, y2: HEIGHT }));
  }
  drawn.push(s("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }));
  lines.forEach((stretches, index) => {
    for (const stretch of stretches) {
      if (index === 0) {
        const ends = `L${x(stretch.at(-1)[0])} ${HEIGHT - 1}L${x(stretch[0][0])} ${HEIGHT - 1}Z`;
        drawn.push(s("path", { class: "area", d: path(stretch) + ends }));
      }
      drawn.push(s("path", { class: `line line-${index}`, d: path(stretch) }));
    }
  });
  if (hovered !== null) drawn.push(s("line", { class: "cursor", x1: x(hovered), x2: x(hovered), y1: 0, y2: HEIGHT }));
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  return s("svg", { class: "chart", ...box }, drawn);
};
