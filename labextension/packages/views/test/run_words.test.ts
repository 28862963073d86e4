import assert from "node:assert/strict";
import test from "node:test";
import type { Rank, RunHead, RunState } from "@quarterdeck/protocol/run";

import { attempt, elapsed, isLive, stateWords, waiting } from "../src/run/run_words";

const HEAD: RunHead = {
  run_id: "r", name: "n", state: "running", words: "", attempt: 0, attempts: 1, world_size: 4, backend: "gloo",
  resumed: "", started_ms: 1_000, ended_ms: null, now_ms: 5_000, can_stop: true, stopping: "",
};

function rank(number: number, more: Partial<Rank>): Rank {
  return {
    rank: number, state: "running", step: 1, step_ms: 100, wait_ms: 10, slowest: false, device: "cpu", cpu_percent: null, gpu_percent: null,
    memory_bytes: null, memory_limit_bytes: null, gpu_memory_bytes: null, gpu_memory_limit_bytes: null, last_line: "", ...more,
  };
}

test("every state has a word and an icon, also one of a newer kernel", () => {
  const states: RunState[] = ["queued", "starting", "running", "restarting", "succeeded", "failed", "stopped", "lost"];
  const words = states.map((state) => stateWords({ ...HEAD, state }, []).word);
  assert.equal(new Set(words).size, states.length);
  assert.equal(stateWords({ ...HEAD, state: "dreaming" as RunState }, []).word, "dreaming");
});

test("starting tells how many ranks are there, restarting which attempt it is", () => {
  const ranks = [rank(0, {}), rank(1, { state: "starting" })];
  assert.equal(stateWords({ ...HEAD, state: "starting", world_size: 2 }, ranks).word, "Starting, 1 of 2 ranks");
  assert.equal(stateWords({ ...HEAD, state: "restarting", attempt: 1, attempts: 3 }, []).word, "Restarting, attempt 2 of 3");
  assert.equal(attempt({ ...HEAD, attempt: 3, attempts: 1 }), "attempt 4 of 4");
});

test("time goes on while the run does, and stands when it is over", () => {
  assert.equal(elapsed(HEAD, 6_000), 5);
  assert.equal(elapsed({ ...HEAD, ended_ms: 3_000 }, 99_000), 2);
  assert.equal(elapsed({ ...HEAD, started_ms: null }, 6_000), null);
  assert.equal(elapsed(HEAD, 0), 0);
  assert.ok(isLive(HEAD) && !isLive({ ...HEAD, state: "lost" }));
});

test("what the slowest costs the others is their median wait", () => {
  const ranks = [rank(0, { wait_ms: 29 }), rank(1, { wait_ms: 31 }), rank(2, { slowest: true, wait_ms: 1 }), rank(3, { wait_ms: 28 })];
  assert.equal(waiting(ranks), "the others wait for it 29 ms a step");
  assert.equal(waiting(ranks.slice(0, 2)), "");
  assert.equal(waiting([rank(0, { wait_ms: null }), rank(1, { slowest: true })]), "");
  assert.equal(waiting([rank(0, { wait_ms: 40 }), rank(1, { slowest: true })]), "the other waits for it 40 ms a step");
});
