/** The points behind the curves: growing columns for each line, changed by the kernel's messages. Pure. */

import type { Curves, SeriesHead } from "@quarterdeck/protocol/run";

/** Order of the columns in a buffer. */
const COLUMNS = 6;

/** Key of a line among those of one metric: the rank, or "mean". */
export type Who = number | "mean";

export function whoOf(head: SeriesHead): Who {
  return head.rank ?? "mean";
}

/** One line: points in order of their steps. A point whose values were not finite has NaN in all four. */
export class Line {
  count = 0;
  /** Grows with every change. */
  version = 0;
  step = new Float64Array(16);
  /** Milliseconds since the run began. */
  time = new Float64Array(16);
  min = new Float64Array(16);
  max = new Float64Array(16);
  mean = new Float64Array(16);
  last = new Float64Array(16);

  /** Keeps the points before `start` and appends `count` points, read from `at` in `buffer`. */
  put(start: number, count: number, buffer: Float64Array, at: number): void {
    this.reserve(start + count);
    for (const [index, column] of this.columns().entries()) {
      column.set(buffer.subarray(at + index * count, at + (index + 1) * count), start);
    }
    this.count = start + count;
    this.version += 1;
  }

  /** Value at the end, for captions; null if there is none. */
  lastValue(): number | null {
    return this.count > 0 ? (this.last[this.count - 1] ?? null) : null;
  }

  /** Index of the point nearest to a step; -1 without points. */
  nearest(x: number, column: Float64Array = this.step): number {
    let [low, high] = [0, this.count - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((column[middle] ?? 0) < x) low = middle + 1;
      else high = middle;
    }
    const before = low > 0 && x - (column[low - 1] ?? 0) <= Math.abs((column[low] ?? 0) - x);
    return before ? low - 1 : high < 0 ? -1 : low;
  }

  private columns(): Float64Array[] {
    return [this.step, this.time, this.min, this.max, this.mean, this.last];
  }

  private reserve(size: number): void {
    if (size <= this.step.length) return;
    const wanted = Math.max(size, this.count === 0 ? size : this.step.length * 2);
    const [step, time, min, max, mean, last] = this.columns().map((old) => {
      const grown = new Float64Array(wanted);
      grown.set(old.subarray(0, this.count));
      return grown;
    }) as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
    Object.assign(this, { step, time, min, max, mean, last });
  }
}

/** Lines of one metric of one run. */
export type Lines = Map<Who, Line>;

/** All lines of one run. */
export class RunCurves {
  names: string[] = [];
  readonly metrics = new Map<string, Lines>();

  lines(name: string): Lines {
    return this.metrics.get(name) ?? new Map();
  }

  ranks(): number[] {
    const found = new Set<number>();
    for (const lines of this.metrics.values()) for (const who of lines.keys()) if (who !== "mean") found.add(who);
    return [...found].sort((a, b) => a - b);
  }

  /** Names of the changed metrics; null if points are missing before these, so that all must be asked for. */
  apply(message: Curves, buffer: Float64Array): Set<string> | null {
    if (message.whole) this.metrics.clear();
    this.names = message.names;
    const changed = new Set<string>(message.whole ? message.names : []);
    for (const { head, at } of parts(message.series)) {
      const line = this.line(head.name, whoOf(head));
      if (head.start > line.count || at + COLUMNS * head.count > buffer.length) return null;
      line.put(head.start, head.count, buffer, at);
      changed.add(head.name);
    }
    return changed;
  }

  private line(name: string, who: Who): Line {
    let lines = this.metrics.get(name);
    if (!lines) this.metrics.set(name, (lines = new Map()));
    let line = lines.get(who);
    if (!line) lines.set(who, (line = new Line()));
    return line;
  }
}

function* parts(series: readonly SeriesHead[]): Iterable<{ head: SeriesHead; at: number }> {
  let at = 0;
  for (const head of series) {
    yield { head, at };
    at += COLUMNS * head.count;
  }
}

/** The lines of a message that answers a zoom; they stand alone. */
export function detailLines(series: readonly SeriesHead[], buffer: Float64Array): Lines {
  const lines: Lines = new Map();
  for (const { head, at } of parts(series)) {
    if (at + COLUMNS * head.count > buffer.length) break;
    const line = new Line();
    line.put(0, head.count, buffer, at);
    lines.set(whoOf(head), line);
  }
  return lines;
}

/** A line with its points between `first` and the end of `detail` replaced by those of `detail`. */
export function merged(line: Line, detail: Line, first: number): Line {
  const from = detail.count > 0 ? Math.min(first, detail.step[0] ?? first) : first;
  const to = detail.step[detail.count - 1] ?? from;
  const whole = new Line();
  const put = (source: Line, start: number, end: number): void => {
    if (end <= start) return;
    const columns = [source.step, source.time, source.min, source.max, source.mean, source.last];
    const buffer = new Float64Array(COLUMNS * (end - start));
    columns.forEach((column, at) => buffer.set(column.subarray(start, end), at * (end - start)));
    whole.put(whole.count, end - start, buffer, 0);
  };
  if (detail.count === 0) return line;
  let before = 0;
  while (before < line.count && (line.step[before] ?? 0) < from) before += 1;
  let after = before;
  while (after < line.count && (line.step[after] ?? 0) <= to) after += 1;
  put(line, 0, before);
  put(detail, 0, detail.count);
  put(line, after, line.count);
  return whole;
}

/** Whether each point from `first` to `last` stands for one value, so that nothing finer can be asked for. */
export function exact(line: Line, first: number, last: number): boolean {
  for (let i = 0; i < line.count; i += 1) {
    const step = line.step[i] ?? 0;
    if (step >= first && step <= last && line.min[i] !== line.max[i] && line.mean[i] === line.mean[i]) return false;
  }
  return true;
}

/** A message's buffer as numbers; empty if there is none. */
export function numbers(buffers: readonly DataView[] | undefined): Float64Array {
  const view = buffers?.[0];
  if (!view) return new Float64Array(0);
  const end = view.byteOffset + view.byteLength - (view.byteLength % 8);
  return new Float64Array(view.buffer.slice(view.byteOffset, end) as ArrayBuffer);
}
