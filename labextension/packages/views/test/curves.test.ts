import assert from "node:assert/strict";
import test from "node:test";
import type { Curves } from "@quarterdeck/protocol/run";

import { detailLines, exact, Line, merged, numbers, RunCurves } from "../src/curves/data";
import { groupsOf, headed } from "../src/curves/groups";
import { Settings } from "../src/curves/settings";
import { smooth } from "../src/curves/smooth";
import { CurveStore } from "../src/curves/store";
import { linearScale, logScale, timeTick } from "../src/curves/ticks";
import { band, extent, trace } from "../src/curves/trace";
import type { Column } from "../src/curves/trace";

type Point = readonly [step: number, value: number];

/** A message's buffer for points whose values are exact. */
function packed(...lines: readonly (readonly Point[])[]): Float64Array {
  return Float64Array.from(
    lines.flatMap((points) => [
      ...points.map(([step]) => step),
      ...points.map(([step]) => step * 10),
      ...Array.from({ length: 4 }).flatMap(() => points.map(([, value]) => value)),
    ]),
  );
}

function message(count: number, more: Partial<Curves> = {}, start = 0): Curves {
  const series = [{ name: "loss", rank: 0, start, count }];
  return { kind: "curves", run_id: "r", names: ["loss"], whole: false, series, ...more };
}

function points(line: Line | undefined): Point[] {
  return Array.from({ length: line?.count ?? 0 }, (_, i) => [line?.step[i] ?? NaN, line?.mean[i] ?? NaN] as const);
}

function lineOf(...all: Point[]): Line {
  const line = new Line();
  line.put(0, all.length, packed(all), 0);
  return line;
}

function column(line: Line): Column {
  return { x: line.step, low: line.min, high: line.max, middle: line.mean, count: line.count };
}

class Pen {
  readonly strokes: [string, number, number][] = [];
  moveTo(x: number, y: number): void {
    this.strokes.push(["move", x, y]);
  }
  lineTo(x: number, y: number): void {
    this.strokes.push(["line", x, y]);
  }
}

const same = (value: number): number => value;

test("a line goes on from its first changed point and drops what stood behind it", () => {
  const run = new RunCurves();
  run.apply(message(3), packed([[0, 1], [1, 2], [2, 3]]));
  run.apply(message(1, {}, 2), packed([[2, 9]]));
  assert.deepEqual(points(run.lines("loss").get(0)), [[0, 1], [1, 2], [2, 9]]);
  run.apply(message(1, {}, 1), packed([[1, 5]]));
  assert.deepEqual(points(run.lines("loss").get(0)), [[0, 1], [1, 5]]);
});

test("a line keeps all points as it grows far beyond its first size", () => {
  const run = new RunCurves();
  for (let i = 0; i < 3000; i += 1) run.apply(message(1, {}, i), packed([[i, i / 2]]));
  const line = run.lines("loss").get(0);
  assert.equal(line?.count, 3000);
  assert.deepEqual([line?.step[2999], line?.time[2999], line?.mean[1234], line?.last[0]], [2999, 29990, 617, 0]);
});

test("a whole message replaces all lines of its run", () => {
  const run = new RunCurves();
  run.apply(message(2), packed([[0, 1], [1, 2]]));
  const series = [{ name: "acc", rank: null, start: 0, count: 1 }];
  const changed = run.apply(message(0, { whole: true, names: ["acc"], series }), packed([[7, 1]]));
  assert.deepEqual([...run.metrics.keys()], ["acc"]);
  assert.deepEqual(points(run.lines("acc").get("mean")), [[7, 1]]);
  assert.ok(changed?.has("acc"));
});

test("a message that goes on where nothing is known asks for everything", () => {
  assert.equal(new RunCurves().apply(message(1, {}, 5), packed([[5, 1]])), null);
  assert.equal(new RunCurves().apply(message(9), packed([[5, 1]])), null);
});

test("several lines of one message are taken in their order", () => {
  const run = new RunCurves();
  const series = [{ name: "a", rank: 0, start: 0, count: 2 }, { name: "a", rank: null, start: 0, count: 1 }];
  run.apply(message(0, { series }), packed([[0, 1], [1, 2]], [[0, 7]]));
  assert.deepEqual(points(run.lines("a").get(0)), [[0, 1], [1, 2]]);
  assert.deepEqual(points(run.lines("a").get("mean")), [[0, 7]]);
});

test("a buffer is read wherever it lies in memory", () => {
  const bytes = new Uint8Array(8 * 6 + 3);
  bytes.set(new Uint8Array(packed([[4, 0.5]]).buffer), 3);
  assert.deepEqual([...numbers([new DataView(bytes.buffer, 3)])], [4, 40, 0.5, 0.5, 0.5, 0.5]);
  assert.equal(numbers(undefined).length, 0);
});

test("the nearest point is found before, between and behind all", () => {
  const line = lineOf([0, 1], [10, 2], [30, 3]);
  assert.deepEqual([-5, 4, 6, 19, 21, 99].map((x) => line.nearest(x)), [0, 0, 1, 1, 2, 2]);
  assert.equal(new Line().nearest(3), -1);
});

test("finer points take the place of the coarse ones between them, and newer ones stay", () => {
  const coarse = lineOf([0, 1], [10, 2], [20, 3], [30, 4], [40, 5]);
  const fine = detailLines([{ name: "loss", rank: 0, start: 0, count: 3 }], packed([[10, 2], [15, 2.5], [20, 3]])).get(0);
  assert.deepEqual(points(merged(coarse, fine ?? new Line(), 9)), [[0, 1], [10, 2], [15, 2.5], [20, 3], [30, 4], [40, 5]]);
  assert.deepEqual(points(merged(coarse, new Line(), 9)), points(coarse));
});

test("only thinned points are worth a question for finer ones", () => {
  const line = lineOf([0, 1], [1, NaN], [2, 3]);
  assert.ok(exact(line, 0, 2));
  line.max[2] = 4;
  assert.ok(!exact(line, 0, 2));
  assert.ok(exact(line, 0, 1));
});

test("finer points go away with the zoom, and follow the line while it grows", () => {
  const store = new CurveStore();
  store.apply(message(3), packed([[0, 1], [10, 2], [20, 3]]));
  const detail = { kind: "detail" as const, name: "loss", first_step: 0, last_step: 10, series: [{ name: "loss", rank: 0, start: 0, count: 2 }] };
  store.refine(detail, packed([[0, 1], [5, 9]]));
  assert.deepEqual(points(store.lines("loss").get(0)), [[0, 1], [5, 9], [10, 2], [20, 3]]);
  store.apply(message(1, {}, 3), packed([[30, 4]]));
  assert.equal(store.lines("loss").get(0)?.count, 5);
  store.coarse();
  assert.equal(store.lines("loss").get(0)?.count, 4);
});

test("other runs do not touch this one", () => {
  const store = new CurveStore();
  store.runId = "r";
  store.apply(message(1), packed([[0, 1]]));
  store.apply(message(1, { run_id: "other", whole: true }), packed([[9, 9]]));
  assert.deepEqual(points(store.lines("loss").get(0)), [[0, 1]]);
  assert.deepEqual(store.range("step"), [0, 0]);
});

test("a peak stays visible however many points share a column of pixels", () => {
  const line = lineOf(...Array.from({ length: 10_000 }, (_, i): Point => [i / 1000, i === 4321 ? 100 : 1]));
  const pen = new Pen();
  trace(pen, column(line), same, same, { left: 0, right: 10 });
  assert.ok(pen.strokes.some(([, , y]) => y === 100));
  assert.ok(pen.strokes.length < 60, `${pen.strokes.length} strokes for 11 columns`);
});

test("a thinned point is drawn through its least and greatest value", () => {
  const line = lineOf([0, 5], [4, 5], [8, 5]);
  [line.min[1], line.max[1]] = [1, 9];
  const pen = new Pen();
  trace(pen, column(line), same, same, { left: 0, right: 10 });
  const at4 = pen.strokes.filter(([, x]) => x === 4).map(([, , y]) => y);
  assert.deepEqual([Math.min(...at4), Math.max(...at4)], [1, 9]);
});

test("a line breaks where the value is not finite, and the place is told", () => {
  const gaps: number[] = [];
  const pen = new Pen();
  trace(pen, column(lineOf([0, 1], [2, 2], [4, NaN], [6, 3], [8, 4])), same, same, { left: 0, right: 10, gap: (x) => gaps.push(x) });
  assert.deepEqual(gaps, [4]);
  assert.deepEqual(pen.strokes.filter(([kind]) => kind === "move").map(([, x]) => x), [0, 6]);
});

test("a zoomed line reaches over both edges", () => {
  const pen = new Pen();
  trace(pen, column(lineOf([0, 1], [10, 2], [20, 3], [30, 4], [40, 5])), same, same, { left: 12, right: 28 });
  assert.deepEqual(pen.strokes.map(([, x]) => x), [10, 20, 30]);
});

test("the band spans all ranks where they have points", () => {
  const shape = band([column(lineOf([0, 1], [2, 5])), column(lineOf([0, 3], [2, NaN]))], same, (y) => -y, 0, 4);
  assert.deepEqual(shape, { x: [0, 2], top: [-3, -5], bottom: [-1, -5] });
});

test("the extent ignores what is not shown, not finite, or not positive on a logarithmic axis", () => {
  const lines = [column(lineOf([0, -100], [1, 2], [2, NaN], [3, 8], [9, 1000]))];
  assert.deepEqual(extent(lines, 1, 5, false), [2, 8]);
  assert.deepEqual(extent(lines, 0, 5, true), [2, 8]);
  assert.equal(extent(lines, 2, 2, false), null);
});

test("smoothing is unbiased at its start and skips gaps", () => {
  const into = new Float64Array(4);
  smooth(Float64Array.from([4, 4, NaN, 4]), 4, 0.9, into);
  assert.deepEqual([...into].map((value) => Number(value.toFixed(9))), [4, 4, NaN, 4]);
});

test("an axis begins and ends with a tick, also for a constant and for zero", () => {
  const scale = linearScale(0.35, 2.6, 5);
  assert.deepEqual([scale.low, scale.high, scale.ticks.length], [0, 3, 7]);
  for (const [low, high] of [[0, 0], [7, 7], [-3, -3], [1e-9, 1e-9], [-1e9, 1e9], [1e15, 1e15 + 2]] as const) {
    const { low: from, high: to, ticks } = linearScale(low, high, 5);
    assert.ok(from <= low && to >= high && from < to && ticks.length >= 2, `${low} to ${high}`);
  }
});

test("a logarithmic axis has ticks for a part of a decade and for many decades", () => {
  for (const [low, high] of [[0.3, 0.9], [0.5, 2.9], [1e-3, 2], [1e-12, 1e9]] as const) {
    const { ticks } = logScale(low, high, 5);
    assert.ok(ticks.length >= 2 && ticks.length <= 14, `${low} to ${high}: ${ticks.length}`);
  }
});

test("ticks of time name no unit that is zero", () => {
  assert.deepEqual([0, 30_000, 120_000, 90_000, 7_200_000].map((at) => timeTick(at, 30_000)), ["0", "30 s", "2 min", "1 min 30 s", "2 h"]);
});

test("metrics stand in groups by their prefix, headed only where that saves looking", () => {
  const groups = groupsOf(["train/loss", "lr", "val/loss", "train/acc", "/odd"]);
  assert.deepEqual(groups.map((group) => [group.prefix, group.names.length]), [["train", 2], ["", 2], ["val", 1]]);
  assert.ok(headed(groups));
  assert.ok(!headed(groupsOf(["train/loss", "val/loss"])));
});

test("up to eight ranks are lines; more are a band until one is chosen", () => {
  const settings = new Settings();
  settings.ranks = [0, 1, 2, 3];
  assert.deepEqual([settings.shows(2), settings.shows("mean"), settings.shows("band")], [true, true, false]);
  settings.isolate(2, [0, 1, 2, 3, "mean"]);
  assert.deepEqual([settings.shows(2), settings.shows(1), settings.shows("mean")], [true, false, false]);
  settings.isolate(2, [0, 1, 2, 3, "mean"]);
  assert.ok(settings.shows(1));
  settings.ranks = Array.from({ length: 9 }, (_, rank) => rank);
  assert.deepEqual([settings.shows(2), settings.shows("band")], [false, true]);
});

test("a value that stands alone is seen", () => {
  const drawn = (...all: Point[]): [string, number, number][] => {
    const pen = new Pen();
    trace(pen, column(lineOf(...all)), same, same, { left: 0, right: 100 });
    return pen.strokes.slice(-2);
  };
  assert.deepEqual(drawn([10, 5]), [["move", 8, 5], ["line", 12, 5]]);
  assert.deepEqual(drawn([1, 1], [2, 1], [5, NaN], [10, 5]), [["move", 8, 5], ["line", 12, 5]]);
  assert.deepEqual(drawn([10, 5], [20, 5]).at(-1), ["line", 20, 5]);
});
