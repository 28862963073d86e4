/** The rows that the output panel draws: lines as the kernel has folded them, and how many came before.
 * Pure: no DOM. Called by output.ts. */

import type { Line, Lines, Look } from "@quarterdeck/protocol/run";

import { ranksInChip } from "../basics/words";

/** One row. It stays the same object while its line changes; then `version` grows. */
export interface Row {
  readonly no: number;
  ranks: readonly number[];
  readonly time_ms: number;
  until_ms: number;
  readonly stream: Line[4];
  text: string;
  looks: readonly Look[];
  version: number;
  /** More than 0: no line, but so many that came before the first. */
  readonly left_out: number;
}

export interface Chips {
  /** To be drawn one by one; or else `text` says which ranks. */
  readonly each: readonly number[];
  readonly text: string;
}

export class OutputRows {
  private readonly known = new Map<number, Row>();
  private rows: Row[] = [];
  private head: Row[] = [];
  private readonly seen = new Set<number>();

  /** Returns the rows that are new. */
  apply(message: Lines): Row[] {
    if (message.whole) this.known.clear();
    for (const no of message.gone) this.known.delete(no);
    const before = this.known.size;
    for (const line of message.lines) this.take(line);
    const added = [...this.known.values()].slice(before);
    for (const no of this.known.keys()) if (no < message.first) this.known.delete(no);
    this.rows = [...this.known.values()].sort((a, b) => a.no - b.no);
    if (message.left_out !== (this.head[0]?.left_out ?? 0)) this.head = message.left_out > 0 ? [gap(message.left_out)] : [];
    return added;
  }

  /** Ranks that have printed anything, in order. */
  get ranks(): number[] {
    return [...this.seen].sort((a, b) => a - b);
  }

  /** Rows to be shown for one rank, or for all (null). */
  shown(rank: number | null): Row[] {
    return [...this.head, ...this.rows.filter((row) => rank === null || row.ranks.includes(rank))];
  }

  private take([no, ranks, time_ms, until_ms, stream, text, looks]: Line): void {
    for (const rank of ranks) this.seen.add(rank);
    const row = this.known.get(no);
    if (row) Object.assign(row, { ranks, until_ms, text, looks, version: row.version + 1 });
    else this.known.set(no, { no, ranks, time_ms, until_ms, stream, text, looks, version: 0, left_out: 0 });
  }
}

/** Chips of a row: all known ranks as one, up to three one by one, more as ranges. */
export function chips({ ranks }: Row, known: readonly number[]): Chips {
  const all = ranks.length > 1 && ranks.length === known.length;
  if (ranks.length <= 3 && !all) return { each: ranks, text: "" };
  const text = ranksInChip(ranks);
  return { each: [], text: text.length <= 9 ? text : `${ranks.length} ranks` };
}

/** Indices of the rows that hold `query`, in either case; none for an empty one. */
export function hits(rows: readonly Row[], query: string): number[] {
  const wanted = query.toLowerCase();
  const found: number[] = [];
  if (wanted === "") return found;
  rows.forEach((row, at) => {
    if (row.left_out === 0 && row.text.toLowerCase().includes(wanted)) found.push(at);
  });
  return found;
}

/** A text in pieces, in turn outside and inside of a hit; it begins outside, perhaps with "". */
export function pieces(text: string, query: string): string[] {
  const wanted = query.toLowerCase();
  const lower = text.toLowerCase();
  // A letter whose lower case is longer moves all places behind it; then nothing is marked.
  if (wanted === "" || lower.length !== text.length) return [text];
  const parts: string[] = [];
  let done = 0;
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, done)) {
    parts.push(text.slice(done, at), text.slice(at, at + wanted.length));
    done = at + wanted.length;
  }
  return [...parts, text.slice(done)];
}

/** The text between two places, in parts that look the same. */
export function* painted({ text, looks }: Row, from: number, to: number): Generator<[text: string, css: string]> {
  const all: Look[] = [[0, ""], ...looks];
  for (const [at, [start, css]] of all.entries()) {
    const part = text.slice(Math.max(from, start), Math.min(to, all[at + 1]?.[0] ?? to));
    if (part !== "") yield [part, css];
  }
}

function gap(left_out: number): Row {
  return { no: 0, ranks: [], time_ms: 0, until_ms: 0, stream: "stdout", text: "", looks: [], version: 0, left_out };
}
