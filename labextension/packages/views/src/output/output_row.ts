/** Draws one row of the output panel. Called by output.ts for the rows that are in sight; a button with
 * `data-full` asks it for the full log. */

import { h, type Child } from "../basics/dom";
import { rankChip } from "../basics/rank_chip";
import { clock, integer } from "../basics/words";
import { chips, pieces, times, type Row } from "./output_lines";

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
  const many = times(row, look.rank);
  return h(
    "div",
    { class: `qd-out-ln qd-out-${row.stream}`, title: titleOf(row, many) },
    h("span", { class: "qd-out-g" }, ...rankChips(row, look), row.stream === "stderr" && sr("stderr")),
    h("span", { class: "qd-out-t qd-m" }, clock(row.time_ms)),
    h("span", { class: "qd-out-x qd-m" }, ...marked(row.text, look.query)),
    many > 1 && repeated(many),
  );
}

function drawGap(row: Row): HTMLElement {
  const lines = `${integer(row.left_out)} ${row.seq < 0 ? "earlier " : ""}line${row.left_out === 1 ? "" : "s"}`;
  const full = h("button", { class: "qd-out-link", "data-full": true }, "full log");
  return h("div", { class: "qd-out-ln qd-out-gap" }, h("span", { class: "qd-out-g" }), `\u2026 ${lines}: `, full);
}

function repeated(many: number): HTMLElement {
  const text = integer(many);
  const props = { class: "qd-ct", role: "img", "aria-label": `${text} times` };
  return h("span", { class: "qd-out-n" }, h("span", props, `\u00d7 ${text}`));
}

function rankChips(row: Row, { rank, known }: Look): Child[] {
  if (rank !== null) return [rankChip(rank)];
  const { each, text } = chips(row, known);
  if (text === "") return each.map(rankChip);
  const label = `ranks ${[...row.counts.keys()].sort((a, b) => a - b).join(", ")}`;
  return [h("span", { class: "qd-rk qd-rk-all", role: "img", "aria-label": label, title: label }, text)];
}

/** When and how often, where the row stands for more than one line; empty for a plain one. */
function titleOf(row: Row, many: number): string | null {
  if (many < 2) return row.stream === "stdout" ? null : row.stream;
  const until = clock(row.last_ms) === clock(row.time_ms) ? "" : ` to ${clock(row.last_ms)}`;
  return `${row.stream}, ${clock(row.time_ms)}${until}, ${integer(many)} times`;
}

function marked(text: string, query: string): Child[] {
  const more = text.length - MOST_DRAWN;
  const parts = pieces(more > 0 ? text.slice(0, MOST_DRAWN) : text, query);
  const drawn: Child[] = parts.map((part, at) => (at % 2 === 1 ? h("mark", null, part) : part));
  if (more > 0) drawn.push(h("span", { class: "qd-dim" }, ` \u2026 ${integer(more)} more characters: full log`));
  return drawn;
}

function sr(text: string): HTMLElement {
  return h("span", { class: "qd-sr" }, text);
}
