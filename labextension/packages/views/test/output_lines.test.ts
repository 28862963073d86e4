import assert from "node:assert/strict";
import { test } from "node:test";
import type { Line, Lines } from "@quarterdeck/protocol/run";

import { ranksInChip } from "../src/basics/words";
import { chips, hits, MOST_ROWS, OutputLines, pieces, times } from "../src/output/output_lines";
import type { Row } from "../src/output/output_lines";

const out = (rank: number, text: string, time_ms = 0): Line => [rank, time_ms, "stdout", text];
const lines = (list: Line[], more: Partial<Lines> = {}): Lines => ({
  kind: "lines",
  whole: false,
  dropped: 0,
  open: [],
  lines: list,
  ...more,
});
const model = (...list: Line[]): OutputLines => {
  const made = new OutputLines();
  made.apply(lines(list, { whole: true }));
  return made;
};
const told = (rows: Row[], rank: number | null = null): string[] =>
  rows.map((row) =>
    row.left_out > 0
      ? `gap ${row.left_out}`
      : `${ranksInChip([...row.counts.keys()].sort())}: ${row.text}${times(row, rank) > 1 ? ` x${times(row, rank)}` : ""}`,
  );

test("equal lines of several ranks within two seconds share a row", () => {
  const rows = model(out(0, "a", 0), out(2, "a", 1_000), out(1, "a", 1_999), out(3, "a", 2_001)).shown(null);
  assert.deepEqual(told(rows), ["0\u20132: a", "3: a"]);
});

test("a line that a rank repeats is counted, however slowly it comes", () => {
  const made = model(out(2, "warn", 0), out(2, "warn", 60_000), out(2, "warn", 120_000));
  assert.deepEqual(told(made.shown(null)), ["2: warn x3"]);
});

test("folding never changes the order of a rank's own lines", () => {
  const made = model(...["A", "B", "A"].map((t) => out(0, t)), ...["A", "B", "B", "A"].map((t) => out(1, t)));
  assert.deepEqual(told(made.shown(null)), ["0, 1: A", "0, 1: B x2", "0, 1: A"]);
  assert.deepEqual(told(made.shown(1), 1).map((row) => row.slice(6)), ["A", "B x2", "A"]);
  const crossed = model(out(0, "A"), out(0, "B"), out(1, "B"), out(1, "A"));
  assert.deepEqual(told(crossed.shown(null)), ["0: A", "0, 1: B", "1: A"]);
});

test("stdout and stderr of the same text stay apart", () => {
  assert.equal(model(out(0, "x"), [1, 0, "stderr", "x"]).shown(null).length, 2);
});

test("one rank's rows show its own count", () => {
  const made = model(out(0, "x"), out(0, "x"), out(0, "x"), out(1, "x"));
  assert.deepEqual(told(made.shown(null)), ["0, 1: x x3"]);
  assert.deepEqual(told(made.shown(1), 1), ["0, 1: x"]);
});

test("lines that were dropped are told before the first row, and in the middle, and nothing folds across", () => {
  const made = new OutputLines();
  made.apply(lines([out(0, "a")], { whole: true, dropped: 12_345 }));
  made.apply(lines([out(1, "a"), out(0, "a")], { dropped: 7 }));
  assert.deepEqual(told(made.shown(null)), ["gap 12345", "0: a", "gap 7", "0, 1: a"]);
});

test("a whole message replaces everything", () => {
  const made = model(out(5, "old"));
  made.apply(lines([out(0, "new")], { whole: true }));
  assert.deepEqual(told(made.shown(null)), ["0: new"]);
  assert.deepEqual(made.ranks, [0]);
});

test("unfinished lines stand at the end and are replaced in place", () => {
  const made = model(out(0, "done"));
  made.apply(lines([], { open: [out(0, "10 %"), out(1, "10 %"), out(2, "")] }));
  assert.deepEqual(told(made.shown(null)), ["0: done", "0, 1: 10 %"]);
  made.apply(lines([out(1, "100 %")], { open: [out(0, "11 %")] }));
  assert.deepEqual(told(made.shown(null)), ["0: done", "1: 100 %", "0: 11 %"]);
  assert.deepEqual(told(made.shown(1)), ["1: 100 %"]);
});

test("no more than the bound is kept, and what went is told", () => {
  const made = new OutputLines();
  let trimmed = 0;
  for (let n = 0; n < 30; n++) {
    const list = Array.from({ length: 1_000 }, (_, i) => out(0, `line ${n * 1_000 + i}`));
    trimmed += made.apply(lines(list, { whole: n === 0 })).trimmed;
  }
  const rows = made.shown(null);
  assert.ok(rows.length <= MOST_ROWS + 501);
  assert.equal(rows[0]?.left_out, trimmed);
  assert.equal(rows[1]?.text, `line ${trimmed}`);
  assert.equal(rows.at(-1)?.text, "line 29999");
  made.apply(lines([out(0, "line 29999"), out(1, "line 29999")]));
  assert.deepEqual(told(made.shown(null)).at(-1), "0, 1: line 29999 x2");
});

test("bursts of many ranks fold, and 20,000 lines take well under a second", () => {
  const made = new OutputLines();
  const began = performance.now();
  const list: Line[] = [];
  for (let burst = 0; burst < 25; burst++)
    for (let rank = 0; rank < 8; rank++)
      for (let n = 0; n < 100; n++) list.push(out(rank, `step ${burst * 100 + n}`, burst * 100));
  made.apply(lines(list, { whole: true }));
  assert.equal(made.shown(null).length, 2_500);
  assert.ok(performance.now() - began < 1_000);
});

test("search finds either case, skips gaps, and marks every place", () => {
  const made = new OutputLines();
  made.apply(lines([out(0, "Epoch 1"), out(0, "loss"), out(0, "an epoch")], { whole: true, dropped: 3 }));
  assert.deepEqual(hits(made.shown(null), "EPOCH"), [1, 3]);
  assert.deepEqual(hits(made.shown(null), ""), []);
  assert.deepEqual(pieces("Epoch epoch!", "epoch"), ["", "Epoch", " ", "epoch", "!"]);
  assert.deepEqual(pieces("\u0130 epoch", "epoch"), ["\u0130 epoch"]);
  assert.deepEqual(pieces("a.b", "."), ["a", ".", "b"]);
});

test("chips: all ranks as one, up to three singly, more as ranges or a number", () => {
  const known = [0, 1, 2, 3, 4, 5, 6, 7];
  const of = (...ranks: number[]) => {
    const made = model(...ranks.map((rank) => out(rank, "x")));
    return chips(made.shown(null)[0] as Row, known);
  };
  assert.deepEqual(of(...known), { each: [], text: "0\u20137" });
  assert.deepEqual(of(0, 1, 3), { each: [0, 1, 3], text: "" });
  assert.deepEqual(of(0, 1, 2, 5), { each: [], text: "0\u20132, 5" });
  assert.deepEqual(of(0, 2, 4, 6), { each: [], text: "4 ranks" });
  assert.deepEqual(chips(model(out(0, "x")).shown(null)[0] as Row, [0]), { each: [0], text: "" });
});
