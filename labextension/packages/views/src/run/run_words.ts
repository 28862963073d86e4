/** A run's state in a word, with icon and colour; who is slow, and what it costs the others. Pure. */

import type { Rank, RunHead } from "@quarterdeck/protocol/run";

import type { IconName } from "../basics/icons";
import { duration, integer } from "../basics/words";

export type Tone = "acc" | "ok" | "warn" | "err" | "idle";

export interface StateWords {
  icon: IconName;
  tone: Tone;
  word: string;
}

/** Goes on, or may go on by itself. */
export function isLive(run: RunHead): boolean {
  return run.state === "queued" || run.state === "starting" || run.state === "running" || run.state === "restarting";
}

export function stateWords(run: RunHead, ranks: readonly Rank[]): StateWords {
  switch (run.state) {
    case "queued":
      return { icon: "dashed", tone: "idle", word: "Queued" };
    case "starting":
      return { icon: "arc", tone: "acc", word: starting(run, ranks) };
    case "running":
      return { icon: "arc", tone: "acc", word: "Running" };
    case "restarting":
      return { icon: "restart", tone: "warn", word: `Restarting, ${attempt(run)}` };
    case "succeeded":
      return { icon: "checked", tone: "ok", word: "Succeeded" };
    case "failed":
      return { icon: "failed", tone: "err", word: "Failed" };
    case "stopped":
      return { icon: "stop", tone: "idle", word: "Stopped" };
    case "lost":
      return { icon: "lost", tone: "err", word: "Lost" };
    default:
      return { icon: "idle", tone: "idle", word: String(run.state) };
  }
}

function starting(run: RunHead, ranks: readonly Rank[]): string {
  const ready = ranks.filter((rank) => rank.state !== "starting").length;
  return run.world_size > 1 ? `Starting, ${ready} of ${run.world_size} ranks` : "Starting";
}

/** "attempt 2 of 3" */
export function attempt(run: RunHead): string {
  return `attempt ${run.attempt + 1} of ${Math.max(run.attempts, run.attempt + 1)}`;
}

/** Seconds since the start; `nowMs` is of the same clock as the run's times. Null before it. */
export function elapsed(run: RunHead, nowMs: number): number | null {
  if (run.started_ms === null) return null;
  return Math.max(0, ((run.ended_ms ?? nowMs) - run.started_ms) / 1000);
}

/** "the others wait for it 29 ms a step": median over the ranks that are not slowest; "" if nobody is. */
export function waiting(ranks: readonly Rank[]): string {
  const others = ranks.filter((rank) => !rank.slowest).flatMap((rank) => (rank.wait_ms === null ? [] : [rank.wait_ms]));
  if (others.length === 0 || !ranks.some((rank) => rank.slowest)) return "";
  const sorted = others.sort((a, b) => a - b);
  const median = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
  const who = others.length === 1 ? "the other waits" : "the others wait";
  return median < 0.5 ? "" : `${who} for it ${duration(median / 1000)} a step`;
}

/** "1 rank", "4 ranks"; "" before they are known. */
export function ranksWord(n: number): string {
  return n === 0 ? "" : `${integer(n)} rank${n === 1 ? "" : "s"}`;
}

/** With a capital letter: a sentence that stands alone. */
export function sentence(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}
