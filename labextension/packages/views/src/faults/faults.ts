/** What went wrong, root cause first; the rest folded. Made by the view; fed with the faults of every `State`. */

import type { Fault } from "@quarterdeck/protocol/run";

import { fill, h } from "../basics/dom";
import { icon } from "../basics/icons";
import type { Panel } from "../basics/panel";
import { rankChip, ranksChip } from "../basics/rank_chip";
import { copy } from "../basics/save";
import { report, rootOf, titleParts, traceParts } from "./fault_words";
import type { TracePart } from "./fault_words";

const SAID_MS = 2_000;

export function faultsPanel(): Panel<Fault[]> {
  const el = h("div", { class: "qd-ft", "data-lm-suppress-shortcuts": "true" });
  const opened = new Set<string>();
  let shown = "";
  return {
    el,
    update(faults) {
      const now = JSON.stringify(faults);
      if (now === shown) return;
      shown = now;
      if (faults.length === 0) return fill(el, h("div", { class: "qd-empty" }, "Nothing went wrong."));
      const root = rootOf(faults);
      fill(el, ...faults.map((fault, at) => section(fault, at, root, faults, opened)));
      for (const pre of el.querySelectorAll("pre")) toEnd(pre);
    },
    dispose: () => fill(el),
  };
}

function section(
  fault: Fault,
  at: number,
  root: Fault | undefined,
  faults: readonly Fault[],
  opened: Set<string>,
): HTMLElement {
  const title = h("span", { class: "qd-ft-title" }, ...titleOf(fault));
  const badge = h("span", { class: fault === root ? "qd-ft-num qd-ft-root" : "qd-ft-num" }, at + 1);
  const rest = body(fault);
  if (fault === root) rest.push(acts(faults));
  const open = fault === root || rest.length === 0;
  const key = `${fault.detail} ${fault.title}`;
  const shown = open ? h("div", { class: "qd-ft-body" }, title, ...rest) : folded(key, title, rest, opened);
  return h("section", { class: "qd-ft-one" }, badge, shown);
}

function folded(key: string, title: HTMLElement, rest: HTMLElement[], opened: Set<string>): HTMLElement {
  const toggle = (event: Event): void => {
    const details = event.currentTarget as HTMLDetailsElement;
    if (details.open) opened.add(key);
    else opened.delete(key);
    for (const pre of details.querySelectorAll("pre")) toEnd(pre);
  };
  const props = { class: "qd-ft-body", open: opened.has(key), on: { toggle } };
  return h("details", props, h("summary", null, icon("chevronRight", true), title), ...rest);
}

function titleOf(fault: Fault): (string | HTMLElement)[] {
  const [before, code, after] = titleParts(fault);
  return code === "" ? [before] : [before, h("code", { class: "qd-m" }, code), after];
}

function body(fault: Fault): HTMLElement[] {
  const parts: HTMLElement[] = [];
  if (fault.detail !== "") parts.push(h("p", { class: "qd-ft-detail" }, fault.detail));
  if (fault.traceback !== "") parts.push(code(fault));
  if (fault.evidence.length > 0) parts.push(list(fault));
  return parts;
}

/** The last line says what happened: it is in sight first, and in the colour of an error. */
function code(fault: Fault): HTMLElement {
  const text = fault.traceback.replace(/\n+$/, "");
  const cut = text.lastIndexOf("\n") + 1;
  const pre = h("pre", { class: "qd-m", tabindex: 0, role: "group", "aria-label": "Traceback" });
  fill(pre, traceParts(text.slice(0, cut).trimEnd()).map(part), h("span", { class: "qd-ft-last" }, text.slice(cut)));
  const title = h("span", { class: "qd-grow" }, "Traceback", ...of(fault));
  const head = h("div", { class: "qd-ft-head" }, icon("file", true), title, copyIcon("Copy traceback", text));
  return h("div", { class: "qd-ft-code" }, head, pre);
}

/** What libraries do with what they were given is seldom where the error is. */
function part({ text, summary }: TracePart): HTMLElement {
  if (summary === "") return h("div", null, text);
  return h("details", { class: "qd-ft-lib" }, h("summary", null, icon("chevronRight", true), summary), text);
}

function of({ ranks }: Fault): (string | HTMLElement)[] {
  const first = ranks[0];
  if (first === undefined) return [];
  return ranks.length === 1 ? [" of rank ", rankChip(first)] : [" of ranks ", ranksChip(ranks)];
}

function list(fault: Fault): HTMLElement {
  const rows = fault.evidence.flatMap(({ label, text }) => [h("dt", null, label), h("dd", null, text)]);
  return h("dl", { class: "qd-ft-ev" }, ...rows);
}

function acts(faults: readonly Fault[]): HTMLElement {
  const word = h("span", null, "Copy report");
  const click = (): void => {
    void copy(report(faults)).then(() => {
      word.textContent = "Copied";
      setTimeout(() => (word.textContent = "Copy report"), SAID_MS);
    });
  };
  return h("div", { class: "qd-ft-acts" }, h("button", { class: "qd-btn", on: { click } }, icon("copy"), word));
}

function copyIcon(label: string, text: string): HTMLElement {
  const button = h("button", { class: "qd-ib", "aria-label": label, title: label }, icon("copy"));
  button.addEventListener("click", () => {
    void copy(text).then(() => {
      fill(button, icon("check"));
      setTimeout(() => fill(button, icon("copy")), SAID_MS);
    });
  });
  return button;
}

/** Once it has a height: the last lines of a long text are those that matter. */
function toEnd(pre: HTMLElement): void {
  const seen = new ResizeObserver(() => {
    if (pre.clientHeight === 0) return;
    pre.scrollTop = pre.scrollHeight;
    seen.disconnect();
  });
  seen.observe(pre);
}
