/** What is in a tensor: numbers and a histogram. Made by detail.ts. */

import type { Statistics } from "@quarterdeck/protocol/checkpoints";

import { fill, h, setAttr } from "../basics/dom";
import { icon } from "../basics/icons";
import { integer, metric, percent } from "../basics/words";
import { svgEl } from "./spark";

const WIDTH = 406;
const HEIGHT = 72;

export class Histogram {
  readonly el = h("section", { class: "qd-ck-part", "aria-label": "Values of a tensor", hidden: true });
  private readonly linear: HTMLButtonElement;
  private readonly log: HTMLButtonElement;
  private isLog = false;
  private shown: Statistics | null = null;

  constructor() {
    const set = (isLog: boolean) => (): void => {
      this.isLog = isLog;
      if (this.shown !== null) this.update(this.shown);
    };
    this.linear = h("button", { type: "button", on: { click: set(false) } }, "linear");
    this.log = h("button", { type: "button", on: { click: set(true) } }, "log");
  }

  clear(): void {
    this.shown = null;
    this.el.hidden = true;
  }

  /** While the kernel reads. */
  wait(tensor: string): void {
    this.shown = null;
    this.el.hidden = false;
    fill(this.el, title(tensor), h("div", { class: "qd-row qd-s qd-dim", role: "status" }, icon("arc", true), "Reading its values"));
  }

  fail(tensor: string, text: string): void {
    this.shown = null;
    this.el.hidden = false;
    fill(this.el, title(tensor), h("div", { class: "qd-note qd-note-err" }, icon("warning"), text));
  }

  update(found: Statistics): void {
    this.shown = found;
    this.el.hidden = false;
    setAttr(this.linear, "aria-pressed", String(!this.isLog));
    setAttr(this.log, "aria-pressed", String(this.isLog));
    const part = found.looked_at < found.values ? `${percent((100 * found.looked_at) / found.values)} of ${integer(found.values)} values` : "";
    const scale = h("div", { class: "qd-seg qd-ck-seg", role: "group", "aria-label": "Counts" }, this.linear, this.log);
    const facts = [
      fact("mean", found.mean), fact("std", found.std), fact("NaN", found.nans), fact("inf", found.infs), fact("zeros", found.zeros),
      part !== "" && h("span", { class: "qd-dim" }, part),
    ];
    const some = found.counts.length > 0;
    fill(this.el, title(found.tensor), h("div", { class: "qd-row qd-xs qd-ck-facts" }, facts, h("span", { class: "qd-grow" }), some && scale), some ? this.picture(found) : h("div", { class: "qd-dim qd-s" }, found.values === 0 ? "It has no values." : "None of its values is finite."));
  }

  private picture(found: Statistics): Node {
    const height = (n: number): number => (this.isLog ? Math.log10(1 + n) : n);
    const most = Math.max(...found.counts.map(height), 1e-9);
    const step = WIDTH / found.counts.length;
    const label = `Histogram of ${found.tensor} from ${exact(found.least)} to ${exact(found.greatest)}`;
    const svg = svgEl("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 1}`, class: "qd-ck-hist", role: "img", "aria-label": label, preserveAspectRatio: "none" });
    found.counts.forEach((n, at) => {
      if (n === 0) return;
      const tall = Math.max(0.7, (height(n) / most) * (HEIGHT - 4));
      svg.append(svgEl("rect", { x: (at * step).toFixed(1), y: (HEIGHT - tall).toFixed(1), width: (step - 1).toFixed(1), height: tall.toFixed(1) }));
    });
    svg.append(svgEl("line", { x1: 0, x2: WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 }));
    return h("div", null, svg, this.axis(found));
  }

  private axis({ least, greatest }: Statistics): HTMLElement {
    const zero = least !== null && greatest !== null && least < 0 && greatest > 0 ? -least / (greatest - least) : null;
    const middle = zero !== null && zero > 0.12 && zero < 0.88;
    const mark = middle && h("span", { class: "qd-ck-zero" }, "0");
    if (mark) mark.style.left = `${100 * zero}%`;
    return h("div", { class: "qd-ck-axis qd-xs qd-dim" }, h("span", null, exact(least)), mark, h("span", null, exact(greatest)));
  }
}

function title(tensor: string): HTMLElement {
  return h("div", { class: "qd-m qd-b qd-ck-wrap" }, tensor);
}

function fact(name: string, value: number | null): HTMLElement {
  return h("span", { class: "qd-nw" }, h("span", { class: "qd-dim" }, `${name} `), Number.isInteger(value) ? integer(value ?? 0) : exact(value));
}

function exact(value: number | null): string {
  return value === 0 ? "0" : metric(value);
}
