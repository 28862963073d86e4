/** Draws one row of the output panel. Called by output.ts for the rows that are in sight; a button with
 * `data-full` asks it for the full log. */

import { h, type Child } from "../basics/dom";
import { rankChip } from "../basics/rank_chip";
import { clock, count, integer } from "../basics/words";
import { chips, painted, pieces, type Row } from "./output_rows";

/** Characters of a line that are drawn; the full log has all. */
export const MOST_DRAWN = 2_000;

export interface Look {
  /** The rank that is shown alone, or null. */
  readonly rank: number | null;
  readonly known: readonly number[];
  readonly query: string;
}

export function drawRow(row: Row, look: Look): HTMLElement {
  if (row.left_out > 0) return drawGap(row);
  return h(
    "div",
    { class: `qd-out-ln qd-out-${row.stream}`, title: titleOf(row) },
    h("span", { class: "qd-out-g" }, ...rankChips(row, look), row.stream === "stderr" && sr("stderr")),
    h("span", { class: "qd-out-t qd-m" }, clock(row.time_ms)),
    h("span", { class: "qd-out-x qd-m" }, ...marked(row, look.query)),
  );
}

function drawGap(row: Row): HTMLElement {
  const lines = count(row.left_out, "earlier line");
  const full = h("button", { class: "qd-out-link", "data-full": true }, "full log");
  return h("div", { class: "qd-out-ln qd-out-gap" }, h("span", { class: "qd-out-g" }), `\u2026 ${lines}: `, full);
}

function rankChips(row: Row, { rank, known }: Look): Child[] {
  if (rank !== null) return [rankChip(rank)];
  const { each, text } = chips(row, known);
  if (text === "") return each.map(rankChip);
  const label = `ranks ${row.ranks.join(", ")}`;
  return [h("span", { class: "qd-rk qd-rk-all", role: "img", "aria-label": label, title: label }, text)];
}

/** From when to when it was written, where ranks wrote it at different times; empty for a plain line. */
function titleOf({ stream, time_ms, until_ms }: Row): string | null {
  if (clock(time_ms) === clock(until_ms)) return stream === "stdout" ? null : stream;
  return `${stream}, ${clock(time_ms)} to ${clock(until_ms)}`;
}

function marked(row: Row, query: string): Child[] {
  const more = row.text.length - MOST_DRAWN;
  const drawn: Child[] = [];
  let from = 0;
  for (const [at, piece] of pieces(row.text.slice(0, MOST_DRAWN), query).entries()) {
    const parts = [...painted(row, from, from + piece.length)].map(([text, css]) => css ? h("span", { style: css }, text) : text);
    drawn.push(at % 2 === 1 ? h("mark", null, ...parts) : parts);
    from += piece.length;
  }
  if (more > 0) drawn.push(h("span", { class: "qd-dim" }, ` \u2026 ${integer(more)} more characters: full log`));
  return drawn;
}

function sr(text: string): HTMLElement {
  return h("span", { class: "qd-sr" }, text);
}
