/** What a row of the table of ranks says. Pure: no DOM. Called by ranks.ts. */

import type { Rank, RankState } from "@quarterdeck/protocol/run";

import type { IconName } from "../basics/icons";
import { gib, ms } from "../basics/words";

export type Colour = "acc" | "ok" | "warn" | "err" | "idle";

export interface StateWords {
  readonly icon: IconName;
  readonly word: string;
  readonly colour: Colour;
  /** The whole sentence, for the pointer. */
  readonly title: string;
  /** Class of the row. */
  readonly row: string;
}

/** A step's time in two parts; shares are percents of the longest step of any rank. */
export interface Work {
  readonly own_ms: number;
  readonly own_share: number;
  readonly wait_share: number;
  readonly words: string;
}

const STATES: Record<RankState, readonly [IconName, Colour]> = {
  starting: ["arc", "acc"],
  running: ["arc", "acc"],
  succeeded: ["checked", "ok"],
  failed: ["failed", "err"],
  interrupted: ["stop", "idle"],
  released: ["idle", "idle"],
  killed: ["failed", "err"],
  stopped: ["stop", "idle"],
  lost: ["lost", "err"],
};

/** `slowest`: some rank of the run is marked, so that the others say how long they wait. */
export function stateOf(rank: Rank, slowest: boolean, short: boolean): StateWords {
  const going = rank.state === "running";
  if (going && rank.slowest) {
    const title = "Its own work for a step takes more than 15 % longer than the others' median";
    return { icon: "warning", word: "slowest", colour: "warn", title, row: "qd-rt-warn" };
  }
  const wait = rank.wait_ms ?? 0;
  if (going && slowest && wait >= 1) {
    const word = `waits ${ms(wait)} ms`;
    const title = `Running; ${word} a step for the slowest`;
    return { icon: "hourglass", word: short ? word : `${word} a step`, colour: "idle", title, row: "" };
  }
  const [icon, colour] = STATES[rank.state];
  return { icon, word: rank.state, colour, title: "", row: colour === "err" ? "qd-rt-err" : "" };
}

/** Null where no step was timed. */
export function workOf(rank: Rank, longest_ms: number): Work | null {
  if (rank.step_ms === null || longest_ms <= 0) return null;
  const wait = Math.min(rank.wait_ms ?? 0, rank.step_ms);
  const own_ms = rank.step_ms - wait;
  const share = (value: number): number => Math.round((1000 * value) / longest_ms) / 10;
  const words = `${ms(own_ms)} ms own work` + (rank.wait_ms === null ? "" : `, ${ms(wait)} ms waiting`);
  return { own_ms, own_share: share(own_ms), wait_share: share(wait), words };
}

/** "Memory, of 32 GiB", or "Memory, GiB" where the ranks' limits differ or nobody knows them. */
export function memoryHead(limits: readonly (number | null)[]): string {
  const [first, ...others] = new Set(limits.filter((limit) => limit !== null));
  if (first === undefined || others.length > 0) return "Memory, GiB";
  return `Memory, of ${gib(first).replace(/\.0$/, "")} GiB`;
}
