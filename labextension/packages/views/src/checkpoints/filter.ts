/** What is typed into the filter: "accuracy > 0.9, best, pinned". Pure. Terms stand between commas, and all of them
 * have to fit; a term that is neither a comparison nor a known word is looked for in the names. */

import type { Group, Row } from "@quarterdeck/protocol/checkpoints";

export type Fits = (row: Row, group: Group) => boolean;

const COMPARISON = /^(.+?)\s*(<=|>=|<|>|=)\s*(-?[\d.]+(?:e[-+]?\d+)?)$/i;

const WORDS: Readonly<Record<string, (row: Row) => boolean>> = {
  best: (row) => row.best.length > 0,
  pinned: (row) => row.pinned,
  valid: (row) => row.problem === "" && row.needs.length === 0,
  damaged: (row) => row.problem !== "",
};

const COMPARED: Readonly<Record<string, (left: number, right: number) => boolean>> = {
  "<": (left, right) => left < right,
  ">": (left, right) => left > right,
  "<=": (left, right) => left <= right,
  ">=": (left, right) => left >= right,
  "=": (left, right) => left === right,
};

export function filterOf(text: string): Fits {
  const terms = text.split(",").map((term) => term.trim()).filter((term) => term !== "");
  const fits = terms.map(term);
  return (row, group) => fits.every((one) => one(row, group));
}

function term(text: string): Fits {
  const found = COMPARISON.exec(text);
  const number = Number(found?.[3]);
  if (found && Number.isFinite(number)) {
    const compare = COMPARED[found[2] ?? ""];
    return (row) => compare?.(valueOf(row, (found[1] ?? "").toLowerCase()), number) ?? false;
  }
  const word = text.toLowerCase();
  const known = WORDS[word];
  if (known) return known;
  return (row, group) =>
    [group.name, row.name, String(row.step), row.problem].some((name) => name.toLowerCase().includes(word));
}

function valueOf(row: Row, name: string): number {
  if (name === "step") return row.step;
  if (name === "epoch") return row.epoch ?? NaN;
  if (name === "mb" || name === "size") return row.size_bytes / 1e6;
  const key = Object.keys(row.metrics).find((metric) => metric.toLowerCase() === name);
  return key === undefined ? NaN : metricOf(row, key);
}

/** NaN where a row has none. */
export function metricOf(row: Row, name: string): number {
  const value = row.metrics[name];
  if (typeof value !== "string") return value ?? NaN;
  return value === "inf" ? Infinity : value === "-inf" ? -Infinity : NaN;
}
