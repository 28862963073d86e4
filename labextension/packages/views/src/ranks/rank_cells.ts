/** What stands in the cells of the table of ranks; each is changed in place, and only where it differs.
 * Called by ranks.ts. */

import type { Rank } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, setText } from "../basics/dom";
import { icon, type IconName } from "../basics/icons";
import { rankChip } from "../basics/rank_chip";
import { ms } from "../basics/words";
import { stateOf, workOf } from "./rank_words";

/** Below, the view is narrow. */
export const WIDE_PX = 520;

/** What a cell must know of the other ranks. */
export interface Context {
  readonly width: number;
  /** The longest step of any rank: the bars' full width. */
  readonly longest_ms: number;
  readonly slowest: boolean;
}

export interface Cell {
  readonly el: HTMLElement;
  update(rank: Rank, context: Context): void;
}

export function chipCell(): Cell {
  const el = h("span");
  let shown = -1;
  return {
    el,
    update: ({ rank }) => {
      if (rank === shown) return;
      shown = rank;
      fill(el, rankChip(rank));
    },
  };
}

export function stateCell(): Cell {
  const mark = h("span", { class: "qd-rt-mark" });
  const word = h("span", { class: "qd-el" });
  const el = h("span", { class: "qd-st qd-rt-state" }, mark, word);
  let shown: IconName | null = null;
  return {
    el,
    update: (rank, { slowest, width }) => {
      const state = stateOf(rank, slowest, width < WIDE_PX);
      if (state.icon !== shown) fill(mark, icon((shown = state.icon)));
      setAttr(el, "class", `qd-st qd-rt-state qd-st-${state.colour}`);
      setAttr(el, "title", state.title);
      setText(word, state.word);
    },
  };
}

export function textCell(of: (rank: Rank) => string, className: string | null = null): Cell {
  const el = h("span", { class: className });
  return {
    el,
    update: (rank) => {
      const text = of(rank);
      setText(el, text);
      setAttr(el, "title", text === "" ? null : text);
    },
  };
}

export function stepTimeCell(): Cell {
  const own = h("i");
  const wait = h("i", { class: "qd-rt-wait" });
  const bar = h("span", { class: "qd-rt-work", role: "img" }, own, wait);
  const number = h("span");
  const el = h("span", { class: "qd-rt-meter" }, bar, number);
  return {
    el,
    update: (rank, { longest_ms }) => {
      const work = workOf(rank, longest_ms);
      el.hidden = work === null;
      if (work === null) return;
      own.style.width = `${work.own_share}%`;
      wait.style.width = `${work.wait_share}%`;
      setAttr(bar, "aria-label", work.words);
      setAttr(el, "title", work.words);
      setText(number, ms(work.own_ms));
    },
  };
}

/** A bar of 0 to 100 % and a text; nothing at all where the value is missing. */
export function meterCell(share: (rank: Rank) => number | null, text: (rank: Rank) => string, high: number): Cell {
  const fillBar = h("i");
  const bar = h("span", { class: "qd-bar", "aria-hidden": "true" }, fillBar);
  const number = h("span");
  const el = h("span", { class: "qd-rt-meter" }, bar, number);
  return {
    el,
    update: (rank) => {
      const value = share(rank);
      el.hidden = text(rank) === "";
      bar.hidden = value === null;
      fillBar.style.width = `${Math.min(100, Math.max(0, value ?? 0))}%`;
      bar.classList.toggle("qd-rt-high", (value ?? 0) >= high && (rank.slowest || high < 100));
      setText(number, text(rank));
    },
  };
}
