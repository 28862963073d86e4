/** The box beside the cross-hair: one row for each line, the mean first. */

import { fill, h, setText, show } from "../basics/dom";
import { metric } from "../basics/words";
import type { Key } from "./settings";

export interface Reading {
  key: Key;
  label: string;
  colour: string;
  dashed: boolean;
  value: number;
  /** Pixels from the top of the plot; NaN outside of it. */
  y: number;
}

export class Readout {
  readonly el = h("div", { class: "qd-tip", hidden: true, "aria-hidden": "true" });
  private readonly head = h("div", { class: "qd-dim qd-el" });
  private readonly rows = h("div");
  private values: HTMLElement[] = [];
  private made = "";

  constructor() {
    this.el.append(this.head, this.rows);
  }

  hide(): void {
    show(this.el, false);
  }

  /** `x` in pixels of a plot that is `width` wide and `height` high. */
  place(head: string, readings: readonly Reading[], x: number, width: number, height: number): void {
    setText(this.head, head);
    this.list(readings);
    show(this.el, true);
    const own = this.el.offsetWidth;
    const left = x < width / 2 ? Math.min(x + 12, Math.max(0, width - own)) : Math.max(x - 12 - own, 0);
    const low = (readings[0]?.y ?? 0) > height / 2;
    this.el.style.transform = `translate(${Math.round(left)}px, ${low ? 0 : Math.max(0, height - this.el.offsetHeight)}px)`;
  }

  private list(readings: readonly Reading[]): void {
    const made = readings.map((reading) => `${reading.key} ${reading.label} ${reading.colour}`).join("\n");
    if (made !== this.made) {
      this.made = made;
      this.values = readings.map(() => h("span", { class: "qd-tip-value" }));
      fill(this.rows, readings.map((reading, at) => row(reading, this.values[at] ?? null)));
    }
    readings.forEach((reading, at) => setText(this.values[at] ?? this.head, metric(reading.value)));
  }
}

function row(reading: Reading, value: HTMLElement | null): HTMLElement {
  const mean = reading.key === "mean";
  const swatch = `qd-sw ${mean ? "qd-sw-mean" : ""} ${reading.dashed ? "qd-sw-dash" : ""}`;
  return h(
    "div",
    { class: mean ? "qd-tip-row qd-b" : "qd-tip-row", style: `--c:${reading.colour}` },
    h("span", { class: swatch }),
    h("span", { class: mean ? "qd-grow" : "qd-grow qd-dim qd-el" }, reading.label),
    value,
  );
}
