/** Where the ticks of an axis lie, and how far it reaches. Pure. */

import { duration, wholeDuration } from "../basics/words";

/** Least of `fronts` times a power of ten that is not below `rough`. */
export function niceStep(rough: number, fronts: readonly number[] = [1, 2, 2.5, 5, 10]): number {
  if (!(rough > 0) || !Number.isFinite(rough)) return 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const front = rough / power;
  const nice = fronts.find((candidate) => front <= candidate * (1 + 1e-9)) ?? 10;
  return nice * power;
}

/** Multiples of `step` from `low` to `high`, both included if they are multiples. */
export function multiples(low: number, high: number, step: number): number[] {
  const all: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9) && all.length < 200; i += 1) {
    all.push(i === 0 ? 0 : i * step);
  }
  return all;
}

export interface Scale {
  low: number;
  high: number;
  ticks: number[];
  /** Distance of neighbouring ticks: says how many decimals they need. */
  step: number;
}

/** A linear axis that begins and ends with a tick, so that it moves only when the values leave it. */
export function linearScale(low: number, high: number, wanted: number): Scale {
  const flat = high - low <= Math.abs(high) * 1e-12;
  const pad = flat ? Math.abs(high) * 0.1 || 0.5 : 0;
  const step = niceStep((high - low + 2 * pad) / wanted);
  const [from, to] = [Math.floor((low - pad) / step + 1e-9) * step, Math.ceil((high + pad) / step - 1e-9) * step];
  return { low: from, high: to, ticks: multiples(from, to, step), step };
}

/** A logarithmic axis: decades; 1, 2 and 5 of each where they are few; even ticks within less than one. */
export function logScale(low: number, high: number, wanted: number): Scale {
  const [from, to] = [low / 1.06, high * 1.06];
  const decades = Math.log10(to / from);
  const fronts = decades > wanted ? [1] : decades > 1 ? [1, 2, 5] : [];
  const every = Math.max(1, Math.ceil(decades / (wanted + 2)));
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power += 1) {
    if (power % every !== 0) continue;
    for (const front of fronts) ticks.push(front * 10 ** power);
  }
  const inside = ticks.filter((tick) => tick >= from && tick <= to);
  const step = niceStep((to - from) / (2 * wanted));
  return { low: from, high: to, ticks: fronts.length ? inside : multiples(from, to, step), step: fronts.length ? 0 : step };
}

const SECOND = 1000;
const TIMES = [0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400];

/** A tick on an axis of time, with no more units than it takes: 0, 30 s, 2 min, 1 h 30 min. */
export function timeTick(valueMs: number, stepMs: number): string {
  if (valueMs === 0) return "0";
  if (stepMs < SECOND) return duration(valueMs / SECOND);
  return wholeDuration(valueMs / SECOND).replace(/ (0 s|00 min|0 h)$/, "");
}

/** Distance of ticks on an axis of time, in milliseconds. */
export function timeStep(rough: number): number {
  const known = TIMES.find((seconds) => seconds * SECOND >= rough);
  return known === undefined ? niceStep(rough / 86_400_000) * 86_400_000 : known * SECOND;
}
