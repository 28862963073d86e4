/** Lines of all ranks as the rows that the output panel draws: equal lines folded, at most 10,000 rows, gaps told.
 * Pure: no DOM. Called by output.ts. */

import type { Line, Lines } from "@quarterdeck/protocol/run";

import { ranksInChip } from "../basics/words";

export const MOST_ROWS = 10_000;
/** Rows beyond MOST_ROWS before the oldest go, so that not every line moves the whole array. */
const SLACK = 500;
/** Ranks that print the same line within this time share its row. */
const FOLD_MS = 2_000;
/** How many rows back a line may still be folded into. */
const REACH = 256;

/** One row. Rows of a model are numbered without holes; `version` grows when a folded row changes. */
export interface Row {
  readonly seq: number;
  readonly stream: Line[2];
  readonly text: string;
  readonly time_ms: number;
  last_ms: number;
  version: number;
  /** How often each rank has printed it; empty in a gap. */
  readonly counts: Map<number, number>;
  /** More than 0: no line but a gap of so many lines. */
  left_out: number;
  /** The last, unfinished line of its rank. */
  readonly open: boolean;
}

export interface Chips {
  /** To be drawn one by one; or else `text` says which ranks. */
  readonly each: readonly number[];
  readonly text: string;
}

/** What one message did: rows gone at the head, and rows added at the end. */
export interface Change {
  readonly trimmed: number;
  readonly added: number;
}

export class OutputLines {
  private rows: Row[] = [];
  private tail: Row[] = [];
  private head: Row = gap(-1, 0);
  private seq = 0;
  /** Nothing is folded into a row before this one: there is a gap between. */
  private floor = 0;
  /** By rank, the row of its last line: a rank's lines are never shown out of their order. */
  private last = new Map<number, number>();
  private readonly seen = new Set<number>();

  apply(message: Lines): Change {
    if (message.whole) this.clear(message.dropped);
    else if (message.dropped > 0) this.leaveOut(message.dropped);
    const before = this.seq;
    for (const line of message.lines) this.add(line);
    this.tail = foldOpen(message.open);
    for (const line of message.open) this.seen.add(line[0]);
    return { trimmed: this.trim(), added: this.seq - before };
  }

  /** Ranks that have printed anything, in order. */
  get ranks(): number[] {
    return [...this.seen].sort((a, b) => a - b);
  }

  /** Rows to be shown for one rank, or for all (null); the gaps belong to each. */
  shown(rank: number | null): Row[] {
    const own = (row: Row): boolean => rank === null || row.left_out > 0 || row.counts.has(rank);
    const rows = rank === null ? this.rows.slice() : this.rows.filter(own);
    if (this.head.left_out > 0) rows.unshift(this.head);
    for (const row of this.tail) if (own(row)) rows.push(row);
    return rows;
  }

  private clear(dropped: number): void {
    this.rows = [];
    this.last.clear();
    this.seen.clear();
    this.head = gap(-1, dropped);
    this.floor = this.seq;
  }

  private leaveOut(dropped: number): void {
    this.last.clear();
    const end = this.rows.at(-1);
    if (end === undefined) this.head = gap(-1, this.head.left_out + dropped);
    else if (end.left_out === 0) this.rows.push(gap(this.seq++, dropped));
    else {
      end.left_out += dropped;
      end.version += 1;
    }
    this.floor = this.seq;
  }

  private add(line: Line): void {
    const [rank, time_ms] = line;
    this.seen.add(rank);
    const row = this.fold(line);
    if (row === undefined) {
      this.rows.push(fresh(this.seq, line, false));
      this.last.set(rank, this.seq++);
      return;
    }
    row.counts.set(rank, (row.counts.get(rank) ?? 0) + 1);
    row.last_ms = time_ms;
    row.version += 1;
    this.last.set(rank, row.seq);
  }

  /** The row that a line repeats, or that other ranks began a moment ago. */
  private fold([rank, time_ms, stream, text]: Line): Row | undefined {
    const first = this.rows[0]?.seq ?? this.seq;
    const last = this.last.get(rank) ?? -1;
    const from = Math.max(last, this.floor, this.seq - REACH) - first;
    for (let at = Math.max(from, 0); at < this.rows.length; at++) {
      const row = this.rows[at];
      if (row === undefined || row.text !== text || row.stream !== stream) continue;
      if (row.seq === last) return row;
      if (!row.counts.has(rank) && Math.abs(time_ms - row.time_ms) <= FOLD_MS) return row;
    }
    return undefined;
  }

  private trim(): number {
    if (this.rows.length <= MOST_ROWS + SLACK) return 0;
    const gone = this.rows.splice(0, this.rows.length - MOST_ROWS);
    const lines = gone.reduce((sum, row) => sum + row.left_out + total(row.counts), 0);
    this.head = gap(-1, this.head.left_out + lines);
    return gone.length;
  }
}

/** How often a row stands for its line: for one rank, or the most of any. */
export function times(row: Row, rank: number | null): number {
  if (rank !== null) return row.counts.get(rank) ?? 0;
  return Math.max(0, ...row.counts.values());
}

/** Chips of a row: all known ranks as one, up to three one by one, more as ranges. */
export function chips(row: Row, known: readonly number[]): Chips {
  const ranks = [...row.counts.keys()].sort((a, b) => a - b);
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

function total(counts: ReadonlyMap<number, number>): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}

function gap(seq: number, left_out: number): Row {
  const counts = new Map<number, number>();
  return { seq, stream: "stdout", text: "", time_ms: 0, last_ms: 0, version: 0, counts, left_out, open: false };
}

function fresh(seq: number, [rank, time_ms, stream, text]: Line, open: boolean): Row {
  const counts = new Map([[rank, 1]]);
  return { seq, stream, text, time_ms, last_ms: time_ms, version: 0, counts, left_out: 0, open };
}

/** Unfinished lines of the same text in one row. */
function foldOpen(lines: readonly Line[]): Row[] {
  const rows: Row[] = [];
  for (const line of lines) {
    if (line[3] === "") continue;
    const same = rows.find((row) => row.text === line[3] && row.stream === line[2]);
    if (same === undefined) rows.push(fresh(-2 - rows.length, line, true));
    else same.counts.set(line[0], 1);
  }
  return rows;
}
