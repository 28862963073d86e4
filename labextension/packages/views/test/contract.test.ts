// The same cases as in `tests/contract`: what the kernel writes and what the page writes read alike.
import assert from "node:assert/strict";
import { test } from "node:test";

import type { Lines } from "@quarterdeck/protocol/run";

import output from "../../../../tests/contract/transcript.json";
import cases from "../../../../tests/contract/words.json";
import { duration, gib, integer, metric, ranksInChip, ranksInText, size } from "../src/basics/words";
import { OutputRows } from "../src/output/output_rows";

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

type Told = [ranks: number[], stream: string, text: string];
interface Output {
  messages: Lines[];
  live: Told[];
  ended: Told[];
}

for (const [name, { messages, live, ended }] of Object.entries(output as unknown as Record<string, Output>)) {
  test(`the output tab shows as a cell does: ${name}`, () => {
    const model = new OutputRows();
    const told = (rank: number | null): Told[] => model.shown(rank).map((row) => [[...row.ranks], row.stream, row.text]);
    const same = (rows: Told[]): void => {
      assert.deepEqual(told(null), rows);
      for (const rank of [0, 1, 2, 3]) assert.deepEqual(told(rank), rows.filter(([ranks]) => ranks.includes(rank)));
    };
    const [last] = JSON.stringify(live) === JSON.stringify(ended) ? [] : messages.slice(-1);
    for (const message of messages) if (message !== last) model.apply(message);
    same(live);
    if (last !== undefined) model.apply(last);
    same(ended);
  });
}
