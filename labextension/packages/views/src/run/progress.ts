/** The bar of all ranks, with the fastest and the slowest. */

import type { Progress, State } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, setText, show } from "../basics/dom";
import type { Panel } from "../basics/panel";
import { rankChip } from "../basics/rank_chip";
import { integer, left } from "../basics/words";
import { isLive, waiting } from "./run_words";

export function progressBar(): Panel<State> {
  const desc = h("span", { class: "qd-el" });
  const n = h("b");
  const total = h("span", { class: "qd-nw" });
  const remains = h("span", { class: "qd-dim qd-nw" });
  const fillBar = h("i");
  const bar = h("div", { class: "qd-bar qd-progress-bar", role: "progressbar", "aria-valuemin": 0 }, fillBar);
  const fast = placed("fastest", "qd-fastest");
  const slow = placed("slowest", "");
  const costs = h("span", { class: "qd-costs qd-el" });
  const pair = h("div", { class: "qd-xs qd-dim qd-pair" }, fast.el, slow.el, costs);
  const line = h("div", { class: "qd-row qd-s" }, h("span", { class: "qd-row qd-progress-words qd-grow" }, desc, n, total), remains);
  const el = h("div", { class: "qd-progress", hidden: true }, line, bar, pair);

  const drawBar = (progress: Progress, live: boolean): void => {
    setText(desc, /\w$/.test(progress.desc) ? `${progress.desc}:` : progress.desc);
    show(desc, progress.desc !== "");
    setText(n, integer(progress.n));
    setText(total, progress.total === null ? "" : `of ${integer(progress.total)}`);
    setText(remains, live && progress.left_s !== null ? left(progress.left_s) : "");
    const share = progress.total ? Math.min(1, progress.n / progress.total) : 0;
    fillBar.style.width = `${(100 * share).toFixed(1)}%`;
    show(bar, progress.total !== null);
    setAttr(bar, "aria-valuenow", progress.n);
    setAttr(bar, "aria-valuemax", progress.total);
    setAttr(bar, "aria-label", progress.desc || "Progress");
  };
  return {
    el,
    update({ run, progress, ranks }) {
      const live = isLive(run);
      const text = live ? waiting(ranks) : "";
      const marked = ranks.find((rank) => rank.slowest)?.rank ?? null;
      const [slowest, fastest] = [marked ?? progress?.slowest ?? null, progress?.fastest ?? null];
      show(el, progress !== null || text !== "");
      show(line, progress !== null);
      if (progress) drawBar(progress, live);
      else show(bar, false);
      fast.put(live && fastest !== slowest ? fastest : null, progress?.fastest_n ?? null);
      slow.put(live ? slowest : null, slowest === progress?.slowest ? progress.slowest_n : null);
      setText(costs, text);
      show(pair, live && (slowest !== null || text !== ""));
      setAttr(el, "data-state", run.state);
    },
    dispose() {},
  };
}

/** "slowest [2] at 1,203" */
function placed(word: string, name: string): { el: HTMLElement; put(rank: number | null, n: number | null): void } {
  const chip = h("span");
  const at = h("span");
  const el = h("span", { class: `qd-placed ${name}` }, word, chip, at);
  let drawn: number | null = null;
  const put = (rank: number | null, n: number | null): void => {
    show(el, rank !== null);
    if (rank !== null && rank !== drawn) fill(chip, rankChip(rank));
    drawn = rank;
    setText(at, n === null ? "" : `at ${integer(n)}`);
  };
  return { el, put };
}
