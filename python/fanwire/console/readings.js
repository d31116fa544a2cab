// The last 15 minutes of /api/stats, as rates and quantiles: each reading of counters against the one before it.

const WINDOW_S = 900;
const SPANS_S = [60, 300, WINDOW_S];
const QUANTILES_S = 10;
const GAP_S = 5;
const KEPT = "fanwire-readings";
const PLANNED = new Set(["1000", "1001", "1005"]);
const FALLING = ["connections_total", "publications", "deliveries", "bytes_out", "bytes_in"];

const sum = (numbers) => Object.values(numbers).reduce((total, one) => total + one, 0);

/** Closes that somebody should know of. */
export const badCloses = (stats) => Object.entries(stats.closes).filter(([code]) => !PLANNED.has(code));

const errors = (stats) =>
  stats.handshakes_refused +
  stats.tokens_refused +
  sum(stats.faults) +
  badCloses(stats).reduce((total, [, one]) => total + one, 0);

/** The value below which a fraction of what the cumulative buckets of `after` have more than `before` lies; null of none. */
export const quantile = (fraction, before, after) => {
  const counts = after.map(([bound, total], index) => [bound, total - (before?.[index]?.[1] ?? 0)]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let [low, below] = [0, 0];
  for (const [bound, total] of counts) {
    if (total >= fraction * all && total > below) {
      return bound === null ? low : low + ((bound - low) * (fraction * all - below)) / (total - below);
    }
    if (bound !== null) low = bound;
    below = total;
  }
  return low;
};

/** Whether the difference of two readings is what happened between them. */
const follows = (before, after) =>
  after.at > before.at &&
  after.at - before.at < 60 &&
  before.workers.join() === after.workers.join() &&
  FALLING.every((name) => after[name] >= before[name]);

export class Readings {
  constructor() {
    this.samples = [];
    this.latest = null;
    this.recent = [];
  }

  /** Takes one in, and gives what it came to. */
  add(stats) {
    const before = this.latest;
    this.latest = stats;
    if (before && !follows(before, stats)) this.recent = [];
    const took = before && follows(before, stats) ? stats.at - before.at : null;
    const each = (now, then) => (took === null ? null : Math.max(0, now - then) / took);
    this.recent = this.recent.filter((one) => one.at >= stats.at - QUANTILES_S);
    const [from] = this.recent;
    const of = (fraction) => (from ? quantile(fraction, from.completion.buckets, stats.completion.buckets) : null);
    this.recent.push(stats);
    const sample = {
      at: stats.at,
      publications: each(stats.publications, before?.publications),
      deliveries: each(stats.deliveries, before?.deliveries),
      bytes_out: each(stats.bytes_out, before?.bytes_out),
      bytes_in: each(stats.bytes_in, before?.bytes_in),
      errors: took === null ? null : each(errors(stats), errors(before)),
      cpu: each(stats.cpu, before?.cpu),
      p50: of(0.5),
      p99: of(0.99),
      connections: stats.connections,
      lagging: stats.lagging,
      memory: stats.memory,
    };
    this.samples.push(sample);
    this.forget(stats.at);
    return sample;
  }

  forget(now) {
    const first = this.samples.findIndex((one) => one.at >= now - WINDOW_S);
    if (first !== 0) this.samples.splice(0, first < 0 ? this.samples.length : first);
  }

  /** How many seconds charts show: as many as there are, in steps. */
  span(now) {
    const first = this.samples[0]?.at ?? now;
    return SPANS_S.find((span) => now - first <= span) ?? WINDOW_S;
  }

  /** The sample that was newest at a time, if one was. */
  at(time) {
    const found = this.samples.findLast((one) => one.at <= time + 0.5);
    return found && found.at > time - GAP_S ? found : null;
  }

  /** The stretches of one number without a gap, each as pairs of a time and a value. */
  stretches(name) {
    const found = [];
    let last = -Infinity;
    for (const one of this.samples) {
      if (one[name] === null) continue;
      if (one.at - last > GAP_S) found.push([]);
      found.at(-1).push([one.at, one[name]]);
      last = one.at;
    }
    return found;
  }

  /** Leave them for this tab's next page. */
  keep() {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(this.samples));
    } catch {
      // There is no room: the next page begins anew.
    }
  }

  /** Take over those of this tab's page before. */
  restore() {
    try {
      this.samples = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    } catch {
      this.samples = [];
    }
    sessionStorage.removeItem(KEPT);
  }
}
