/** The controls beside the legend: smoothing, x axis, logarithmic values, charts a row, comparison. */

import { iconButton } from "../basics/buttons";
import { h, setAttr, setText, show } from "../basics/dom";
import type { Settings, XAxis } from "./settings";

export class Options {
  readonly el: HTMLElement;
  private readonly value = h("span", { class: "qd-smooth-value" }, "0.00");
  private readonly slider = h("input", { type: "range", min: 0, max: 99, value: 0, "aria-label": "Smoothing" });
  private readonly axes: Record<XAxis, HTMLButtonElement>;
  private readonly log = iconButton("log", "Logarithmic values");
  private readonly layout = iconButton("layout", "One chart a row");
  private readonly all = h("button", { class: "qd-btn qd-btn-small", type: "button", hidden: true }, "Show all");

  constructor(
    private readonly settings: Settings,
    private readonly changed: () => void,
    compare: HTMLElement,
  ) {
    this.axes = { step: this.axis("step"), time: this.axis("time") };
    this.slider.addEventListener("input", () => this.set(() => (settings.smoothing = this.slider.valueAsNumber / 100)));
    this.log.addEventListener("click", () => this.set(() => (settings.log = !settings.log)));
    this.layout.addEventListener("click", () => this.set(() => (settings.columns = settings.columns === 1 ? 2 : 1)));
    this.all.addEventListener("click", () => this.set(() => (settings.zoom = null)));
    const smoothing = h("label", { class: "qd-row qd-s qd-dim qd-smooth" }, h("span", null, "Smoothing"), this.slider, this.value);
    const segment = h("div", { class: "qd-seg", role: "group", "aria-label": "x axis" }, this.axes.step, this.axes.time);
    this.el = h("div", { class: "qd-options" }, this.all, smoothing, segment, this.log, this.layout, compare);
    this.mark(true);
  }

  /** `wide`: there is room for two charts in a row. */
  mark(wide: boolean): void {
    const { settings } = this;
    setText(this.value, settings.smoothing.toFixed(2));
    for (const [name, button] of Object.entries(this.axes)) setAttr(button, "aria-pressed", String(settings.x === name));
    setAttr(this.log, "aria-pressed", String(settings.log));
    setAttr(this.layout, "aria-pressed", String(settings.columns === 1));
    show(this.layout, wide);
    show(this.all, settings.zoom !== null);
  }

  private axis(name: XAxis): HTMLButtonElement {
    const click = (): void => this.set(() => ([this.settings.x, this.settings.zoom] = [name, null]));
    return h("button", { type: "button", on: { click } }, name);
  }

  private set(change: () => void): void {
    change();
    this.changed();
  }
}
