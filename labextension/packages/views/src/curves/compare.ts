/** A small list of earlier runs, to be drawn beside this one. */

import type { OtherRun } from "@quarterdeck/protocol/run";

import { arrows, fill, h, setAttr, show } from "../basics/dom";
import { icon } from "../basics/icons";
import type { Send } from "../basics/panel";
import { age, metric } from "../basics/words";
import { RUN_TOKENS } from "./colours";

/** So many runs can be told apart. */
const MOST = RUN_TOKENS.length;

export class Compare {
  readonly el: HTMLElement;
  /** Chosen runs, in the order in which they were chosen; their place is their colour. */
  readonly chosen: OtherRun[] = [];
  private readonly button: HTMLButtonElement;
  private readonly list = h("div", { class: "qd-pop", role: "group", "aria-label": "Earlier runs", hidden: true });
  private runs: OtherRun[] | null = null;
  private readonly ended = new AbortController();

  constructor(
    private readonly send: Send,
    private readonly changed: () => void,
  ) {
    const label = "Compare with an earlier run";
    const props = { class: "qd-ib", type: "button", "aria-label": label, title: label, "aria-expanded": "false" };
    this.button = h("button", { ...props, on: { click: () => this.open(this.list.hidden) } }, icon("compare"));
    this.el = h("div", { class: "qd-compare", on: { keydown: (event) => this.key(event) } }, this.button, this.list);
    arrows(this.list, "input");
    const outside = (event: Event): void => {
      if (!event.composedPath().includes(this.el)) this.open(false);
    };
    document.addEventListener("pointerdown", outside, { signal: this.ended.signal });
  }

  dispose(): void {
    this.ended.abort();
  }

  /** The kernel's answer. */
  offer(runs: OtherRun[]): void {
    this.runs = runs;
    this.draw();
  }

  /** Place of a chosen run; -1 if it is not. */
  place(runId: string): number {
    return this.chosen.findIndex((run) => run.run_id === runId);
  }

  /** Asks again for the chosen ones, after all was asked for anew. */
  again(): void {
    if (this.chosen.length > 0) this.send({ kind: "compare", run_ids: this.chosen.map((run) => run.run_id) });
  }

  private open(open: boolean): void {
    if (open === !this.list.hidden) return;
    show(this.list, open);
    setAttr(this.button, "aria-expanded", String(open));
    if (!open) return;
    this.send({ kind: "wantruns" });
    this.draw();
  }

  private key(event: KeyboardEvent): void {
    if (event.key !== "Escape" || this.list.hidden) return;
    event.stopPropagation();
    this.open(false);
    this.button.focus();
  }

  private draw(): void {
    if (this.runs === null) return fill(this.list, h("div", { class: "qd-dim" }, "Looking for earlier runs"));
    const known = new Set(this.runs.map((run) => run.run_id));
    const all = [...this.runs, ...this.chosen.filter((run) => !known.has(run.run_id))];
    if (all.length === 0) {
      return fill(this.list, h("div", { class: "qd-dim" }, "No earlier run in this notebook has a metric of this one."));
    }
    const focused = this.list.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset["run"] : undefined;
    fill(this.list, all.map((run) => this.row(run)));
    [...this.list.querySelectorAll("input")].find((input) => input.dataset["run"] === focused)?.focus();
  }

  private row(run: OtherRun): HTMLElement {
    const at = this.place(run.run_id);
    const full = at < 0 && this.chosen.length >= MOST;
    const change = (): void => this.choose(run);
    const box = h("input", { type: "checkbox", "data-run": run.run_id, disabled: full, on: { change } });
    box.checked = at >= 0;
    const swatch = h("span", { class: "qd-sw qd-sw-dash", style: `--c:${at < 0 ? "transparent" : `var(${RUN_TOKENS[at]})`}` });
    const [first] = Object.entries(run.last);
    const value = first ? `${first[0]} ${metric(first[1])}` : "";
    const words = h("span", { class: "qd-dim qd-el" }, [age(run.started_ms, Date.now()), run.state, value].filter(Boolean).join(", "));
    const name = h("span", { class: "qd-el qd-compare-name", title: run.name }, run.name);
    return h("label", { class: "qd-compare-row" }, box, swatch, name, words);
  }

  private choose(run: OtherRun): void {
    const at = this.place(run.run_id);
    if (at >= 0) this.chosen.splice(at, 1);
    else this.chosen.push(run);
    this.send({ kind: "compare", run_ids: this.chosen.map((one) => one.run_id) });
    this.draw();
    this.changed();
  }
}
