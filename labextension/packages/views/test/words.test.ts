import assert from "node:assert/strict";
import test from "node:test";

import * as words from "../src/basics/words";

function each<A>(name: string, call: (value: A) => string, pairs: readonly (readonly [A, string])[]): void {
  test(name, () => {
    for (const [value, text] of pairs) assert.equal(call(value), text);
  });
}

each("integers have thousands commas", words.integer, [[0, "0"], [1204, "1,204"], [-12345678, "-12,345,678"], [NaN, "nan"]]);

each("metrics have three decimals, and more digits where those would say nothing", words.metric, [
  [0.409, "0.409"], [0.4, "0.400"], [12.34567, "12.346"], [0, "0.000"], [0.0012345, "0.001234"], [0.00081, "8.1e-4"],
  [1.2e-5, "1.2e-5"], [-1.2e-5, "-1.2e-5"], [1e-300, "1e-300"], [4096, "4,096"], [1234.56, "1,234.6"], [123456.7, "123,457"],
  [1.5e9, "1.5e9"], [NaN, "nan"], [Infinity, "inf"], [-Infinity, "-inf"], [null, ""], [undefined, ""],
]);

each("durations name two units at most", words.duration, [
  [0.038, "38 ms"], [0.21, "0.21 s"], [3.2, "3.2 s"], [9.96, "10 s"], [58, "58 s"], [59.6, "1 min 0 s"], [143, "2 min 23 s"],
  [3 * 3600 + 4 * 60, "3 h 04 min"], [2 * 86400 + 5 * 3600, "2 d 5 h"], [NaN, ""], [-1, ""],
]);

each("a rate below one a second is told as the time of a step", words.rate, [
  [8.4, "8.4 steps/s"], [0.3125, "3.2 s a step"], [1234.5, "1,235 steps/s"], [0, ""], [null, ""], [NaN, ""],
]);

each("sizes of files are in units of 1000", words.size, [
  [0, "0 B"], [999, "999 B"], [1000, "1.0 kB"], [412_000, "412 kB"], [999_600, "1.0 MB"], [264e6, "264 MB"], [4.2e15, "4,200 TB"],
]);

each("ranks in running text", words.ranksInText, [[[], ""], [[2], "rank 2"], [[0, 1], "ranks 0 and 1"], [[0, 1, 3], "ranks 0, 1 and 3"]]);

each("ranks in a chip", words.ranksInChip, [[[0, 1, 2, 3], "0–3"], [[0, 1], "0, 1"], [[0, 2, 3, 4, 7], "0, 2–4, 7"], [[], ""]]);

each("steps on an axis stay short", words.steps, [[0, "0"], [1200, "1,200"], [12_000, "12,000"], [250_000, "250k"], [1_500_000, "1.5M"], [2e12, "2T"]]);

test("ticks have as many decimals as tell them apart", () => {
  assert.equal(words.tick(2, 0.5), "2.0");
  assert.equal(words.tick(0.25, 0.05), "0.25");
  assert.equal(words.tick(300, 100), "300");
  assert.deepEqual([0, 0.25, 0.5].map((value) => words.tick(value, 0.25)), ["0.00", "0.25", "0.50"]);
  assert.equal(words.tick(7.5, 2.5), "7.5");
  assert.equal(words.tick(2e-5, 1e-5), "2e-5");
});

test("ages name the day once it is another one", () => {
  const now = new Date(2026, 7, 20, 12, 0).getTime();
  assert.equal(words.age(now - 90_000, now), "1 min");
  assert.equal(words.age(now - 3 * 3_600_000, now), "3 h");
  assert.equal(words.age(now - 13 * 3_600_000, now), "yesterday");
  assert.equal(words.age(new Date(2026, 7, 3).getTime(), now), "2026-08-03");
});

test("what is missing is an empty cell, never 0", () => {
  assert.deepEqual([words.gib(null), words.percent(null), words.ms(null), words.rate(null)], ["", "", "", ""]);
});
