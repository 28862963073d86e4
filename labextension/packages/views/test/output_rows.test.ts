import assert from "node:assert/strict";
import { test } from "node:test";
import type { Line, Lines, Look } from "@quarterdeck/protocol/run";

import { ranksInChip } from "../src/basics/words";
import { chips, hits, OutputRows, painted, pieces } from "../src/output/output_rows";
import type { Row } from "../src/output/output_rows";

const line = (no: number, ranks: number[], text: string, looks: Look[] = []): Line => [no, ranks, 0, 0, "stdout", text, looks];
const lines = (list: Line[], more: Partial<Lines> = {}): Lines => ({
  kind: "lines",
  whole: false,
  left_out: 0,
  first: 0,
  gone: [],
  lines: list,
  ...more,
});
const model = (...list: Line[]): OutputRows => {
  const made = new OutputRows();
  made.apply(lines(list, { whole: true }));
  return made;
};
const told = (rows: Row[]): string[] =>
  rows.map((row) => (row.left_out > 0 ? `gap ${row.left_out}` : `${ranksInChip([...row.ranks])}: ${row.text}`));

test("a row of several ranks is shown for each of them", () => {
  const made = model(line(1, [0, 1, 2, 3], "same"), line(2, [1], "other"));
  assert.deepEqual(told(made.shown(2)), ["0\u20133: same"]);
  assert.deepEqual(told(made.shown(1)), ["0\u20133: same", "1: other"]);
  assert.deepEqual(made.ranks, [0, 1, 2, 3]);
});

test("a line that is sent again changes its row, in its place", () => {
  const made = model(line(1, [0], "50 %"), line(2, [0], "end"));
  const [row] = made.shown(null) as [Row];
  assert.deepEqual(made.apply(lines([line(1, [0, 1], "100 %"), line(3, [1], "new")])).map((one) => one.no), [3]);
  assert.deepEqual(told(made.shown(null)), ["0, 1: 100 %", "0: end", "1: new"]);
  assert.equal(made.shown(null)[0], row);
  assert.equal(row.version, 1);
});

test("a line may come between others, and one that is gone is shown no more", () => {
  const made = model(line(1, [0], "a"), line(2, [0], "b"));
  made.apply(lines([line(1.5, [1], "between")], { gone: [2] }));
  assert.deepEqual(told(made.shown(null)), ["0: a", "1: between"]);
});

test("rows before the first are gone, and how many there were is told, to each rank", () => {
  const made = model(line(1, [0], "a"), line(2, [0], "b"));
  made.apply(lines([line(3, [1], "c")], { first: 2, left_out: 1 }));
  assert.deepEqual(told(made.shown(null)), ["gap 1", "0: b", "1: c"]);
  assert.deepEqual(told(made.shown(1)), ["gap 1", "1: c"]);
});

test("a whole message replaces everything", () => {
  const made = model(line(1, [5], "old"), line(7, [5], "old"));
  made.apply(lines([], { first: 2, left_out: 1 }));
  made.apply(lines([line(1, [0], "new")], { whole: true }));
  assert.deepEqual(told(made.shown(null)), ["0: new"]);
  assert.equal(made.shown(null)[0]?.version, 0);
});

test("10,000 rows that change ten times a second take little time", () => {
  const all = Array.from({ length: 10_000 }, (_, no) => line(no, [0, 1, 2, 3], `step ${no}`));
  const made = model(...all);
  const began = performance.now();
  for (let n = 0; n < 10; n++) made.apply(lines(all.slice(9_000)));
  assert.ok(performance.now() - began < 500);
});

test("search finds either case, skips gaps, and marks every place", () => {
  const made = new OutputRows();
  const list = ["Epoch 1", "loss", "an epoch"].map((text, at) => line(at + 4, [0], text));
  made.apply(lines(list, { whole: true, left_out: 3 }));
  assert.deepEqual(hits(made.shown(null), "EPOCH"), [1, 3]);
  assert.deepEqual(hits(made.shown(null), ""), []);
  assert.deepEqual(pieces("Epoch epoch!", "epoch"), ["", "Epoch", " ", "epoch", "!"]);
  assert.deepEqual(pieces("\u0130 epoch", "epoch"), ["\u0130 epoch"]);
  assert.deepEqual(pieces("a.b", "."), ["a", ".", "b"]);
});

test("a part of a coloured line keeps its colours", () => {
  const [row] = model(line(1, [0], "a red word", [[2, "color:red"], [5, ""]])).shown(null) as [Row];
  assert.deepEqual([...painted(row, 0, 10)], [["a ", ""], ["red", "color:red"], [" word", ""]]);
  assert.deepEqual([...painted(row, 3, 7)], [["ed", "color:red"], [" w", ""]]);
});

test("chips: all ranks as one, up to three singly, more as ranges or a number", () => {
  const known = [0, 1, 2, 3, 4, 5, 6, 7];
  const of = (...ranks: number[]) => chips(model(line(1, ranks, "x")).shown(null)[0] as Row, known);
  assert.deepEqual(of(...known), { each: [], text: "0\u20137" });
  assert.deepEqual(of(0, 1, 3), { each: [0, 1, 3], text: "" });
  assert.deepEqual(of(0, 1, 2, 5), { each: [], text: "0\u20132, 5" });
  assert.deepEqual(of(0, 2, 4, 6), { each: [], text: "4 ranks" });
  assert.deepEqual(chips(model(line(1, [0], "x")).shown(null)[0] as Row, [0]), { each: [0], text: "" });
});
