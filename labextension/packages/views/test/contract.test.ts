// The same cases as in `tests/contract`: what the kernel writes and what the page writes read alike.
import assert from "node:assert/strict";
import { test } from "node:test";

import cases from "../../../../tests/contract/words.json";
import { duration, gib, integer, metric, ranksInChip, ranksInText, size } from "../src/basics/words";

type Case = (string | number)[];
const written = { integer, metric, size, gib, duration };

for (const [name, write] of Object.entries(written)) {
  test(`${name} writes as Python does`, () => {
    for (const [value, text] of cases[name as keyof typeof written] as Case[]) {
      const number = typeof value === "number" ? value : value === "nan" ? NaN : value === "inf" ? Infinity : -Infinity;
      assert.equal(write(number), text, `${name}(${value})`);
    }
  });
}

test("ranks are written as Python does", () => {
  for (const [ranks, worldSize, inText, inChip] of cases.ranks as [number[], number, string, string][]) {
    assert.equal(ranksInText(ranks, worldSize), inText, `${ranks} of ${worldSize}`);
    assert.equal(ranksInChip(ranks, worldSize), inChip, `${ranks} of ${worldSize}`);
  }
});
