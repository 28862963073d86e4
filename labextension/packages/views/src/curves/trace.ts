/** Walks a line in pixels, at most a few strokes for each column of the canvas, so that drawing costs what the
 * canvas is wide and no peak is lost. Pure: draws on anything with `moveTo` and `lineTo`. */

export interface Pen {
  moveTo(x: number, y: number): void;
  lineTo(x: number, y: number): void;
}

/** Values to pixels; NaN where the scale has no place for a value (log of 0). */
export type Place = (value: number) => number;

export interface Column {
  readonly x: Float64Array;
  readonly low: Float64Array;
  readonly high: Float64Array;
  readonly middle: Float64Array;
  readonly count: number;
}

/** How a line is to be walked: the span of pixels, and how many of them make a column. */
export interface Walk {
  readonly left: number;
  readonly right: number;
  readonly grain?: number;
  /** Told of the x pixels at which the values are NaN. */
  readonly gap?: (x: number) => void;
}

/** Half of the width of a point that no line leads to or from. */
const ALONE = 2;

/** Draws a line; it breaks where the values are NaN, and a value that stands alone is a short dash. */
export function trace(pen: Pen, line: Column, px: Place, py: Place, { left, right, grain = 1, gap }: Walk): void {
  let at = NaN;
  let inside = NaN;
  let open = false;
  let [low, high, out] = [0, 0, 0];
  const flush = (): void => {
    if (at !== at) return;
    if (high - low > 0.5) {
      const downFirst = Math.abs(low - out) < Math.abs(high - out);
      pen.lineTo(at, downFirst ? low : high);
      pen.lineTo(at, downFirst ? high : low);
    }
    pen.lineTo(at, out);
    at = inside = NaN;
  };
  let alone: [x: number, y: number] | null = null;
  const close = (): void => {
    flush();
    if (!open || !alone) return;
    pen.moveTo(alone[0] - ALONE, alone[1]);
    pen.lineTo(alone[0] + ALONE, alone[1]);
  };
  let before = -1;
  for (let i = 0; i < line.count; i += 1) {
    const x = px(line.x[i] ?? NaN);
    if (x < left) {
      before = i;
      continue;
    }
    const y = py(line.middle[i] ?? NaN);
    if (y !== y) {
      close();
      open = false;
      before = -1;
      if (x <= right) gap?.(x);
      continue;
    }
    if (!open) {
      const from = before >= 0 ? py(line.middle[before] ?? NaN) : NaN;
      if (from === from) pen.moveTo(px(line.x[before] ?? NaN), from);
      else pen.moveTo(x, y);
      open = true;
      alone = from === from ? null : [x, y];
    } else {
      alone = null;
    }
    const [a, b] = [py(line.high[i] ?? NaN), py(line.low[i] ?? NaN)];
    const [one, other] = [a === a ? a : y, b === b ? b : y];
    const column = Math.round(x / grain);
    if (inside === column) {
      low = Math.min(low, one, other, y);
      high = Math.max(high, one, other, y);
      out = y;
    } else {
      flush();
      [at, inside, out] = [x, column, y];
      [low, high] = [Math.min(one, other, y), Math.max(one, other, y)];
    }
    if (x > right) break;
  }
  close();
}

export interface Band {
  /** Pixels from the left for each column that has a value. */
  readonly x: number[];
  readonly top: number[];
  readonly bottom: number[];
}

/** Least and greatest of many lines for each column of pixels. */
export function band(lines: readonly Column[], px: Place, py: Place, left: number, right: number): Band {
  const width = Math.max(0, Math.ceil(right - left) + 1);
  const top = new Float64Array(width).fill(Infinity);
  const bottom = new Float64Array(width).fill(-Infinity);
  for (const line of lines) {
    for (let i = 0; i < line.count; i += 1) {
      const column = Math.round(px(line.x[i] ?? NaN) - left);
      if (!(column >= 0 && column < width)) continue;
      const [a, b] = [py(line.high[i] ?? NaN), py(line.low[i] ?? NaN)];
      if (a < (top[column] ?? 0)) top[column] = a;
      if (b > (bottom[column] ?? 0)) bottom[column] = b;
    }
  }
  const shape: Band = { x: [], top: [], bottom: [] };
  for (let column = 0; column < width; column += 1) {
    const [a, b] = [top[column] ?? Infinity, bottom[column] ?? -Infinity];
    if (a === Infinity || b === -Infinity) continue;
    shape.x.push(left + column);
    shape.top.push(a);
    shape.bottom.push(b);
  }
  return shape;
}

/** Least and greatest finite value of the columns between two x values; above 0 only with `positive`. */
export function extent(lines: readonly Column[], first: number, last: number, positive: boolean): [number, number] | null {
  let [low, high] = [Infinity, -Infinity];
  for (const line of lines) {
    for (let i = 0; i < line.count; i += 1) {
      const x = line.x[i] ?? NaN;
      if (!(x >= first && x <= last)) continue;
      const [a, b] = [line.low[i] ?? NaN, line.high[i] ?? NaN];
      if (a < low && (!positive || a > 0)) low = a;
      if (b > high) high = b;
      if (positive && !(a > 0) && b > 0 && b < low) low = b;
    }
  }
  return low <= high ? [low, high] : null;
}
