// Numbers as people read them. What is not known is a dash.

const NONE = "–";
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

const isNone = (value) => value === null || value === undefined || Number.isNaN(value);

const three = (value) => {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/\.0+$/, "");
};

const scaled = (value, units, step) => {
  let unit = 0;
  while (unit < units.length - 1 && value >= step * 0.9995) {
    value /= step;
    unit += 1;
  }
  return `${unit === 0 && Number.isInteger(value) ? value : three(value)}${units[unit]}`;
};

/** 12,345 */
export const count = (value) => (isNone(value) ? NONE : whole.format(value));

/** 12.3 k, for where there is little room */
export const short = (value) => (isNone(value) ? NONE : scaled(value, ["", " k", " M", " G", " T"], 1000));

/** 81.2 kB */
export const bytes = (value) => (isNone(value) ? NONE : scaled(value, [" B", " kB", " MB", " GB", " TB"], 1000));

/** 3.2/s */
export const rate = (value) => (isNone(value) ? NONE : `${short(value)}/s`);

/** 12 % */
export const percent = (value) => (isNone(value) ? NONE : `${three(value * 100)} %`);

/** 450 µs, 31 ms, 4.2 s, 3 min 12 s, 2 h 5 min, 3 d 4 h */
export const duration = (value) => {
  if (isNone(value)) return NONE;
  if (value === 0) return "0 s";
  if (value < 0.001) return `${three(value * 1e6)} µs`;
  if (value < 1) return `${three(value * 1e3)} ms`;
  if (value < 60) return `${three(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
};

/** How long ago a time since 1970 is. */
export const since = (value) => (isNone(value) ? NONE : duration(Math.max(0, Math.floor(Date.now() / 1000 - value))));

/** 14:03:59 here */
export const clock = (value) => (isNone(value) ? NONE : new Date(value * 1000).toTimeString().slice(0, 8));

/** `1 client`, `12 clients` */
export const several = (value, noun, many = `${noun}s`) => `${count(value)} ${value === 1 ? noun : many}`;
