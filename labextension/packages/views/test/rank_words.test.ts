import assert from "node:assert/strict";
import { test } from "node:test";
import type { Rank, RankState } from "@quarterdeck/protocol/run";

import { memoryHead, stateOf, workOf } from "../src/ranks/rank_words";

const rank = (more: Partial<Rank> = {}): Rank => ({
  rank: 0,
  state: "running",
  step: 1,
  step_ms: 119,
  wait_ms: 29,
  slowest: false,
  device: "cpu",
  cpu_percent: null,
  gpu_percent: null,
  memory_bytes: null,
  memory_limit_bytes: null,
  gpu_memory_bytes: null,
  gpu_memory_limit_bytes: null,
  last_line: "",
  ...more,
});

test("the slowest is told in words, and the others say how long they wait for it", () => {
  assert.equal(stateOf(rank({ slowest: true }), true, false).word, "slowest");
  assert.equal(stateOf(rank(), true, false).word, "waits 29 ms a step");
  assert.equal(stateOf(rank(), true, true).word, "waits 29 ms");
  assert.equal(stateOf(rank(), false, false).word, "running");
  assert.equal(stateOf(rank({ wait_ms: 0.4 }), true, false).word, "running");
  assert.equal(stateOf(rank({ wait_ms: null }), true, false).word, "running");
});

test("a rank that is over says so, whether it was the slowest or not", () => {
  const over: RankState[] = ["succeeded", "failed", "interrupted", "released", "killed", "stopped", "lost"];
  for (const state of over) assert.equal(stateOf(rank({ state, slowest: true }), true, false).word, state);
  for (const state of ["failed", "killed", "lost"] as const)
    assert.equal(stateOf(rank({ state }), false, false).row, "qd-rt-err");
});

test("a step's time is its own work and its waiting, which together never exceed the longest step", () => {
  const work = workOf(rank(), 119);
  assert.deepEqual([work?.own_ms, work?.words], [90, "90 ms own work, 29 ms waiting"]);
  assert.ok((work?.own_share ?? 0) + (work?.wait_share ?? 0) <= 100.1);
  assert.equal(workOf(rank({ wait_ms: 500 }), 119)?.own_ms, 0);
  assert.equal(workOf(rank({ wait_ms: null }), 119)?.words, "119 ms own work");
  assert.equal(workOf(rank({ step_ms: null }), 119), null);
});

test("the head of the memory column names the limit only where all ranks have the same", () => {
  assert.equal(memoryHead([32 * 2 ** 30, 32 * 2 ** 30]), "Memory, of 32 GiB");
  assert.equal(memoryHead([32 * 2 ** 30, null]), "Memory, of 32 GiB");
  assert.equal(memoryHead([32 * 2 ** 30, 64 * 2 ** 30]), "Memory, GiB");
  assert.equal(memoryHead([null]), "Memory, GiB");
});
