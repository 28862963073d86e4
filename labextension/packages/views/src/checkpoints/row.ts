/** One line of the list: the head of a group, or a checkpoint. Made by list.ts. */

import type { Row } from "@quarterdeck/protocol/checkpoints";

import { h } from "../basics/dom";
import type { Child } from "../basics/dom";
import { icon } from "../basics/icons";
import type { IconName } from "../basics/icons";
import { age, count, integer, metric, size } from "../basics/words";
import { metricOf } from "./filter";
import { mainMetric } from "./items";
import type { Entry, Head } from "./items";
import { sparkline } from "./spark";

export interface Look {
  /** Names of the metrics that have a column. */
  readonly metrics: readonly string[];
  readonly nowMs: number;
  /** "A" and "B" of those that are marked to be compared. */
  readonly marks: ReadonlyMap<string, string>;
}

export function headLine(head: Head): HTMLElement {
  const { group } = head;
  const props = { class: "qd-ck-line qd-ck-group", role: "treeitem", "aria-level": 1, "aria-expanded": String(head.open) };
  const words = [group.words, group.rows.length === head.count ? "" : `${integer(head.count)} of ${integer(group.rows.length)}`];
  return h(
    "div",
    { ...props, title: group.path, "aria-label": `${group.name}, ${count(head.count, "checkpoint")}, ${group.words}` },
    icon(head.open ? "chevronDown" : "chevronRight", true),
    h("span", { class: "qd-b qd-el qd-ck-name" }, group.name),
    h("span", { class: "qd-dim qd-grow qd-el" }, words.filter((word) => word !== "").join(", ")),
    sparkline(group),
  );
}

export function rowLine(entry: Entry, look: Look): HTMLElement {
  const { row } = entry;
  const props = { class: "qd-ck-line qd-ck-row", role: "treeitem", "aria-level": 2, "aria-label": spoken(entry, look) };
  const dim = row.problem !== "" ? "qd-dim" : "qd-b";
  const mark = look.marks.get(row.id);
  const values = row.problem === "" ? look.metrics.map((name, at) => cell(`qd-ck-m${at}`, valueText(row, name), name)) : [];
  return h(
    "div",
    props,
    h("span", { class: `qd-ck-step qd-el ${dim}`, title: row.name }, stepText(row)),
    h("span", { class: "qd-dim qd-el" }, row.created_ms > 0 ? age(row.created_ms, look.nowMs) : ""),
    cell("qd-ck-size", row.size_bytes > 0 ? size(row.size_bytes) : ""),
    values,
    h("span", { class: row.problem !== "" ? "qd-ck-notes qd-ck-long" : "qd-ck-notes" }, mark !== undefined && h("span", { class: "qd-rk qd-rk-all" }, mark), badges(entry, false)),
  );
}

function cell(name: string, text: string, title?: string): HTMLElement {
  return h("span", { class: `qd-ck-r qd-el ${name}`, title: title === undefined ? null : `${title} ${text}` }, text);
}

/** `named`: with the metrics that it is best in. */
export function badges({ row, group }: Entry, named: boolean): Child[] {
  const main = mainMetric(group);
  const best = named || (main !== null && !row.best.includes(main)) ? `best ${row.best.join(", ")}` : "best";
  const titles = `best ${row.best.join(", ")}`;
  return [
    row.problem !== "" && badge("warning", "err", `${shortly(row.problem)}, skipped`, row.problem),
    row.needs.length > 0 && badge("warning", "err", "needs trust", `needs trust: ${row.needs.join(", ")}`),
    row.best.length > 0 && badge("star", "ok", best, titles),
    row.pinned && badge("pin", "acc", "pinned", "never removed"),
  ];
}

function badge(name: IconName, tone: string, word: string, title: string): HTMLElement {
  return h("span", { class: `qd-ck-badge qd-st-${tone}`, title }, icon(name, true), h("span", { class: "qd-el" }, word));
}

/** The kernel's words name a file; a line has room for less. */
export function shortly(problem: string): string {
  if (/missing|never completed/.test(problem)) return "incomplete";
  if (/altered|checksum/.test(problem)) return "altered";
  return /format/.test(problem) ? "of a later version" : "damaged";
}

export function stepText(row: Row): string {
  return row.step >= 0 ? integer(row.step) : row.name;
}

export function stepWords(row: Row): string {
  return row.step >= 0 ? `Step ${integer(row.step)}` : row.name;
}

export function valueText(row: Row, name: string): string {
  return name in row.metrics ? metric(metricOf(row, name)) : "";
}

function spoken(entry: Entry, look: Look): string {
  const { row } = entry;
  const values = look.metrics.filter((name) => name in row.metrics).map((name) => `${name} ${valueText(row, name)}`);
  const notes = [
    row.problem !== "" && `damaged, skipped: ${row.problem}`,
    row.needs.length > 0 && `needs trust: ${row.needs.join(", ")}`,
    row.best.length > 0 && `best ${row.best.join(", ")}`,
    row.pinned && "pinned",
    look.marks.has(row.id) && `marked as ${look.marks.get(row.id)}`,
  ];
  const parts = [stepWords(row), age(row.created_ms, look.nowMs), size(row.size_bytes), ...values, ...notes];
  return parts.filter((part) => part !== false && part !== "").join(", ");
}
