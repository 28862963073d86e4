/** What a chart draws: one stroke for each line, with its colour and its points, smoothed if wanted. Pure. */

import { RUN_DASHES } from "./colours";
import type { Colours } from "./colours";
import type { Line, Lines } from "./data";
import type { Key, Settings } from "./settings";
import { smooth } from "./smooth";
import type { Column } from "./trace";

export interface Stroke {
  key: Key;
  label: string;
  colour: string;
  width: number;
  dash: readonly number[];
  alpha: number;
  line: Line;
  column: Column;
  /** The values as they are, drawn faintly below the smoothed ones. */
  raw: Column | null;
}

/** A run that this one is compared with: its mean. */
export interface OtherLine {
  key: Key;
  label: string;
  at: number;
  line: Line;
}

/** Strokes from the lowest to the topmost: ranks, other runs, the mean. Only a rank's line runs through the least
 * and the greatest value of each point; a mean that did would hide the ranks. */
export function strokesOf(lines: Lines, others: readonly OtherLine[], settings: Settings, colours: Colours): Stroke[] {
  const strokes: Stroke[] = [];
  const mean = meanOf(lines, settings);
  for (const rank of settings.ranks) {
    const line = lines.get(rank);
    if (line && settings.shows(rank) && line !== mean) strokes.push(stroke(rank, `rank ${rank}`, line, settings, rankStyle(rank, colours)));
  }
  for (const other of others) {
    const dash = RUN_DASHES[other.at % RUN_DASHES.length] ?? [];
    const colour = colours.runs[other.at % colours.runs.length] ?? colours.fg2;
    if (settings.shows(other.key)) {
      strokes.push(stroke(other.key, other.label, other.line, settings, { colour, width: 1.25, dash, alpha: 1 }));
    }
  }
  const style = { colour: colours.mean, width: settings.single ? 1.5 : 2, dash: [], alpha: 1 };
  if (mean && settings.shows("mean")) strokes.push(stroke("mean", settings.single ? "this run" : "mean", mean, settings, style));
  return strokes;
}

/** The mean over ranks; of one rank its own line, as nobody sends a mean of one. */
export function meanOf(lines: Lines, settings: Settings): Line | undefined {
  const [only] = settings.ranks;
  return lines.get("mean") ?? (settings.single && only !== undefined ? lines.get(only) : undefined);
}

interface Style {
  colour: string;
  width: number;
  dash: readonly number[];
  alpha: number;
}

function rankStyle(rank: number, colours: Colours): Style {
  const colour = colours.ranks[rank % 8] ?? colours.fg2;
  return { colour, width: 1, dash: rank % 8 >= 4 ? [4, 3] : [], alpha: 0.8 };
}

function stroke(key: Key, label: string, line: Line, settings: Settings, style: Style): Stroke {
  const all = plain(line, settings);
  const spread = typeof key === "number" || settings.single;
  const raw = spread ? all : { ...all, low: all.middle, high: all.middle };
  const smoothed = settings.smoothing > 0 ? averaged(line, settings, raw) : null;
  return { key, label, line, ...style, ...faded(key, style, settings), column: smoothed ?? raw, raw: smoothed ? raw : null };
}

function faded(key: Key, style: Style, settings: Settings): Pick<Style, "width" | "alpha"> {
  if (settings.focus === null) return style;
  return settings.focus === key ? { width: Math.max(2, style.width), alpha: 1 } : { width: style.width, alpha: 0.25 };
}

/** The columns of a line as they are. */
export function plain(line: Line, settings: Settings): Column {
  const x = settings.x === "step" ? line.step : line.time;
  return { x, low: line.min, high: line.max, middle: line.mean, count: line.count };
}

interface Kept {
  version: number;
  weight: number;
  values: Float64Array;
}

const kept = new WeakMap<Line, Kept>();

function averaged(line: Line, settings: Settings, raw: Column): Column {
  let known = kept.get(line);
  if (!known || known.version !== line.version || known.weight !== settings.smoothing) {
    known = { version: line.version, weight: settings.smoothing, values: new Float64Array(line.count) };
    smooth(line.mean, line.count, settings.smoothing, known.values);
    kept.set(line, known);
  }
  return { ...raw, low: known.values, high: known.values, middle: known.values };
}
