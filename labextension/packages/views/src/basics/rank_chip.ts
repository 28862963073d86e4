/** A rank as a coloured swatch with its number: colour never speaks alone. */

import { h } from "./dom";
import { ranksInChip, ranksInText } from "./words";

/** CSS variable of a rank's colour; the palette has eight and begins anew. */
export function rankColour(rank: number): string {
  return `var(--qd-r${((rank % 8) + 8) % 8})`;
}

/** One rank's chip. */
export function rankChip(rank: number): HTMLElement {
  const label = `rank ${rank}`;
  return h("span", { class: "qd-rk", style: `--c:${rankColour(rank)}`, role: "img", "aria-label": label, title: label }, rank);
}

/** One grey chip for several ranks: "0–3". */
export function ranksChip(ranks: readonly number[]): HTMLElement {
  const only = ranks[0];
  if (ranks.length === 1 && only !== undefined) return rankChip(only);
  const label = ranksInText(ranks);
  return h("span", { class: "qd-rk qd-rk-all", role: "img", "aria-label": label, title: label }, ranksInChip(ranks));
}
