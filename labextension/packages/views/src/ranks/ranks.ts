/** The table of ranks: one row each, in place, nothing moves. Made by the view; fed with every `State`. */

import type { Rank } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, setText } from "../basics/dom";
import type { Panel } from "../basics/panel";
import { gib, integer, percent } from "../basics/words";
import { chipCell, meterCell, stateCell, stepTimeCell, textCell, WIDE_PX, type Cell } from "./rank_cells";
import { memoryHead, stateOf } from "./rank_words";

export interface RanksState {
  readonly ranks: Rank[];
  /** The view's width in px: columns go as it shrinks. */
  readonly width: number;
}

interface Column {
  readonly head: (ranks: readonly Rank[], width: number) => string;
  readonly title?: string;
  /** px; 0 takes what is left. */
  readonly width: number;
  /** px in a narrow view, if it is not the same. */
  readonly narrow?: number;
  readonly right?: boolean;
  readonly cell: () => Cell;
  /** Whether these ranks and a view of this width have the column; without it, always. */
  readonly wanted?: (ranks: readonly Rank[], width: number) => boolean;
}

interface Row {
  readonly el: HTMLElement;
  readonly cells: readonly Cell[];
}

const SCROLLS_FROM = 16;

export function ranksTable(): Panel<RanksState> {
  const cols = h("colgroup");
  const head = h("tr");
  const body = h("tbody");
  const table = h("table", { class: "qd-rt" }, cols, h("thead", null, head), body);
  const el = h("div", { class: "qd-rt-box" }, table);
  let columns: readonly Column[] = [];
  let rows = new Map<number, Row>();

  const rebuild = (wanted: readonly Column[]): void => {
    columns = wanted;
    rows = new Map();
    fill(cols, ...columns.map(() => h("col")));
    const cell = ({ right, title }: Column): HTMLElement => h("th", { scope: "col", class: right && "qd-rt-r", title });
    fill(head, ...columns.map(cell));
    body.replaceChildren();
  };
  const drawHead = (ranks: readonly Rank[], width: number): void =>
    columns.forEach((one, at) => {
      setText(head.children[at] as Element, one.head(ranks, width));
      const px = width < WIDE_PX ? (one.narrow ?? one.width) : one.width;
      setAttr(cols.children[at] as Element, "style", px > 0 && `width:${px}px`);
    });

  return {
    el,
    update({ ranks, width }) {
      const wanted = COLUMNS.filter((one) => one.wanted?.(ranks, width) ?? true);
      if (wanted.length !== columns.length || wanted.some((one, at) => one !== columns[at])) rebuild(wanted);
      drawHead(ranks, width);
      scrolls(el, ranks.length > SCROLLS_FROM);
      drawRows(body, rows, columns, ranks, width);
    },
    dispose: () => body.replaceChildren(),
  };
}

function scrolls(el: HTMLElement, on: boolean): void {
  el.classList.toggle("qd-rt-many", on);
  setAttr(el, "tabindex", on && 0);
  setAttr(el, "role", on && "group");
  setAttr(el, "aria-label", on && "Ranks");
}

function drawRows(
  body: HTMLElement,
  rows: Map<number, Row>,
  columns: readonly Column[],
  ranks: readonly Rank[],
  width: number,
): void {
  const longest_ms = Math.max(0, ...ranks.map((rank) => rank.step_ms ?? 0));
  const context = { width, longest_ms, slowest: ranks.some((rank) => rank.slowest) };
  for (const [number, row] of rows) {
    if (ranks.some((rank) => rank.rank === number)) continue;
    row.el.remove();
    rows.delete(number);
  }
  ranks.forEach((rank, at) => {
    const row = rows.get(rank.rank) ?? newRow(columns);
    rows.set(rank.rank, row);
    if (body.children[at] !== row.el) body.insertBefore(row.el, body.children[at] ?? null);
    setAttr(row.el, "class", stateOf(rank, context.slowest, false).row);
    for (const cell of row.cells) cell.update(rank, context);
  });
}

function newRow(columns: readonly Column[]): Row {
  const cells = columns.map((one) => one.cell());
  const wrap = (cell: Cell, at: number): HTMLElement =>
    at === 0
      ? h("th", { scope: "row" }, cell.el)
      : h("td", { class: columns[at]?.right === true && "qd-rt-r" }, cell.el);
  return { el: h("tr", null, ...cells.map(wrap)), cells };
}

const part = (value: number | null, limit: number | null): number | null =>
  value === null || limit === null || limit <= 0 ? null : (100 * value) / limit;

const hasGpu = (ranks: readonly Rank[]): boolean =>
  ranks.some((rank) => rank.gpu_percent !== null || rank.gpu_memory_bytes !== null);

/** It is so of some rank, or may be so soon. */
const known = (ranks: readonly Rank[], key: "step" | "step_ms" | "cpu_percent" | "memory_bytes"): boolean =>
  ranks.some((rank) => rank[key] !== null || rank.state === "starting" || rank.state === "running");

const gpuMemory = (head: Column["head"], bar: boolean): Column => ({
  head,
  title: "GPU memory as the device reports it",
  width: bar ? 116 : 62,
  narrow: 62,
  right: !bar,
  wanted: (ranks, width) => hasGpu(ranks) && bar === width >= WIDE_PX,
  cell: () =>
    meterCell(
      (rank) => (bar ? part(rank.gpu_memory_bytes, rank.gpu_memory_limit_bytes) : null),
      (rank) => gib(rank.gpu_memory_bytes),
      95,
    ),
});

const COLUMNS: readonly Column[] = [
  { head: () => "Rank", width: 56, narrow: 48, cell: chipCell },
  { head: () => "State", width: 164, narrow: 112, cell: stateCell },
  {
    head: () => "Step",
    width: 66,
    right: true,
    wanted: (ranks, width) => width >= WIDE_PX && known(ranks, "step"),
    cell: () => textCell((rank) => (rank.step === null ? "" : integer(rank.step))),
  },
  {
    head: (_, width) => (width >= WIDE_PX ? "Step time, ms" : "Step, ms"),
    title: "A rank's own work for a step; the hatched part is waiting for other ranks",
    width: 114,
    narrow: 96,
    wanted: (ranks) => known(ranks, "step_ms"),
    cell: stepTimeCell,
  },
  {
    head: () => "Device",
    width: 72,
    wanted: (_, width) => width >= WIDE_PX,
    cell: () => textCell((rank) => rank.device, "qd-m qd-el qd-rt-text"),
  },
  {
    head: () => "GPU",
    width: 92,
    narrow: 88,
    wanted: hasGpu,
    cell: () => meterCell((rank) => rank.gpu_percent, (rank) => percent(rank.gpu_percent), 101),
  },
  gpuMemory((ranks) => memoryHead(ranks.map((rank) => rank.gpu_memory_limit_bytes)), true),
  gpuMemory(() => "GiB", false),
  {
    head: (ranks) => memoryHead(ranks.map((rank) => rank.memory_limit_bytes)),
    title: "Resident memory of the rank's process",
    width: 134,
    wanted: (ranks) => !hasGpu(ranks) && known(ranks, "memory_bytes"),
    cell: () =>
      meterCell(
        (rank) => part(rank.memory_bytes, rank.memory_limit_bytes),
        (rank) => gib(rank.memory_bytes),
        95,
      ),
  },
  {
    head: () => "CPU",
    title: "Of one core; more than 100% with several threads",
    width: 92,
    wanted: (ranks, width) => width >= 760 && known(ranks, "cpu_percent"),
    cell: () => meterCell((rank) => rank.cpu_percent, (rank) => percent(rank.cpu_percent), 100),
  },
  {
    head: () => "Last line",
    width: 0,
    wanted: (ranks, width) => width >= (hasGpu(ranks) ? 860 : 800),
    cell: () => textCell((rank) => rank.last_line, "qd-m qd-el qd-rt-text"),
  },
];
