/** The part of the view with the curves: toolbar, groups, charts, notes. */

import type { Curves, Detail, OtherRun } from "@quarterdeck/protocol/run";

import { iconButton } from "../basics/buttons";
import { fill, h, setAttr, show } from "../basics/dom";
import { icon } from "../basics/icons";
import type { Send } from "../basics/panel";
import { count } from "../basics/words";
import { Chart } from "./chart";
import type { Surroundings } from "./chart";
import { coloursOf } from "./colours";
import type { Colours } from "./colours";
import { Compare } from "./compare";
import { groupsOf, headed, MANY } from "./groups";
import type { Group } from "./groups";
import { entriesOf, Legend } from "./legend";
import { Options } from "./options";
import { Painter } from "./painter";
import { Settings } from "./settings";
import { CurveStore } from "./store";
import { meanOf } from "./strokes";
import type { OtherLine } from "./strokes";

const WIDE = 760;
const NARROW = 520;
/** So many charts are drawn before it is known whether they can be seen, so that the first picture comes at once. */
const AT_ONCE = 6;
const HEIGHT = { two: 172, one: 212, narrow: 148 };

export class CurvesSection {
  readonly el: HTMLElement;
  private readonly store = new CurveStore();
  private readonly settings = new Settings();
  private readonly painter = new Painter<Chart>();
  private readonly charts = new Map<string, Chart>();
  private readonly open = new Map<string, boolean>();
  private readonly grid = h("div", { class: "qd-groups" });
  private readonly notes = h("div", { class: "qd-notes" });
  private readonly empty = h("div", { class: "qd-empty" });
  private readonly body: HTMLElement;
  private readonly legend: Legend;
  private readonly options: Options;
  private readonly compare: Compare;
  private readonly watch: IntersectionObserver;
  private readonly gear = iconButton("gear", "Curve options");
  private readonly around: Surroundings;
  private palette: Colours | null = null;
  private width = 0;
  private made = "";
  private zoomTimer: ReturnType<typeof setTimeout> | undefined;
  private dropDetail = false;

  constructor(private readonly send: Send) {
    this.around = this.surroundings();
    this.legend = new Legend(this.settings, () => this.redraw());
    this.compare = new Compare(send, () => this.changedRuns());
    this.options = new Options(this.settings, () => this.changedOptions(), this.compare.el);
    this.watch = new IntersectionObserver((seen) => this.seen(seen), { rootMargin: "200px 0px" });
    const title = h("h3", { class: "qd-ttl" }, "Metrics");
    const bar = h("div", { class: "qd-toolbar" }, title, this.legend.el, this.gear, this.options.el);
    setAttr(this.gear, "aria-expanded", "false");
    this.gear.addEventListener("click", () => this.fold());
    this.body = h("div", { "data-lm-suppress-shortcuts": "true" }, bar, this.grid, this.notes);
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.el = h("section", { class: "qd-sec qd-curves", "aria-label": "Metrics" }, this.body, this.empty);
    fill(this.empty, "No metrics yet. ", h("code", { class: "qd-m" }, "qd.log(loss=loss, step=step)"), " draws them here.");
    show(this.body, false);
  }

  get any(): boolean {
    return this.store.own().names.length > 0;
  }

  /** `lonely`: nothing else is there to be looked at, so that it is said how to draw something. */
  update(runId: string, notes: readonly string[], lonely: boolean): void {
    this.store.runId = runId;
    show(this.el, this.any || lonely);
    show(this.body, this.any);
    show(this.empty, !this.any && lonely);
    const words = notes.map((note) => h("div", { class: "qd-row" }, icon("warning", true), h("span", null, note)));
    if (this.notes.dataset["made"] !== notes.join("\n")) fill(this.notes, words);
    this.notes.dataset["made"] = notes.join("\n");
    show(this.notes, notes.length > 0);
  }

  /** False if points are missing, so that all must be asked for again. */
  curves(message: Curves, buffer: Float64Array): boolean {
    const changed = this.store.apply(message, buffer);
    if (changed === null) return false;
    if (message.run_id === this.store.runId && message.whole) this.store.coarse();
    this.arrange();
    const shared = this.charts.size;
    for (const [name, chart] of this.charts) if (changed.has(name) || shared > 1) this.painter.ask(chart);
    return true;
  }

  detail(message: Detail, buffer: Float64Array): void {
    if (!this.settings.zoom) return;
    if (this.dropDetail) this.store.coarse();
    this.dropDetail = false;
    this.store.refine(message, buffer);
    const chart = this.charts.get(message.name);
    if (chart) this.painter.ask(chart);
  }

  runs(runs: OtherRun[]): void {
    this.compare.offer(runs);
  }

  /** After everything was asked for anew. */
  again(): void {
    this.compare.again();
  }

  /** Fits the charts into this many pixels. */
  resize(width: number): void {
    this.width = width;
    setAttr(this.el, "data-narrow", width < NARROW);
    setAttr(this.el, "data-wide", width >= WIDE);
    this.options.mark(width >= WIDE);
    this.redraw();
  }

  /** The theme has changed. */
  recolour(): void {
    this.palette = null;
    this.redraw();
  }

  dispose(): void {
    clearTimeout(this.zoomTimer);
    this.watch.disconnect();
    this.painter.dispose();
    this.compare.dispose();
    for (const chart of this.charts.values()) chart.dispose();
    this.charts.clear();
  }

  private surroundings(): Surroundings {
    return {
      settings: this.settings,
      colours: () => (this.palette ??= coloursOf(this.el)),
      lines: (name) => this.store.lines(name),
      others: (name) => this.others(name),
      range: () => this.store.range(this.settings.x),
      hover: (x, from, spoken) => {
        for (const chart of this.charts.values()) chart.point(x, spoken && chart === from);
      },
      zoom: (range) => this.zoom(range),
    };
  }

  private others(name: string): OtherLine[] {
    return this.compare.chosen.flatMap((run, at) => {
      const line = this.store.run(run.run_id).lines(name).get("mean");
      return line ? [{ key: `run:${run.run_id}` as const, label: run.name, at, line }] : [];
    });
  }

  // ---- what is there

  private arrange(): void {
    this.settings.ranks = this.store.own().ranks();
    this.legends();
    const { names } = this.store.own();
    const made = `${names.join("\n")} ${[...this.open]}`;
    if (made === this.made) return;
    this.made = made;
    for (const name of [...this.charts.keys()].filter((known) => !names.includes(known))) this.drop(name);
    const groups = groupsOf(names);
    const folding = names.length > MANY;
    if (headed(groups)) fill(this.grid, groups.map((group, at) => this.group(group, folding, at)));
    else fill(this.grid, this.row(names));
    this.redraw();
  }

  private legends(): void {
    const runs = this.compare.chosen.map((run, at) => ({ key: `run:${run.run_id}` as const, name: run.name, at }));
    this.legend.update(entriesOf(this.settings, runs));
  }

  private group(group: Group, folding: boolean, at: number): HTMLElement {
    const open = this.open.get(group.prefix) ?? (!folding || at === 0);
    const toggle = (): void => {
      this.open.set(group.prefix, !open);
      this.arrange();
      [...this.grid.querySelectorAll<HTMLElement>(".qd-group-head")][at]?.focus();
    };
    const word = group.prefix || "other metrics";
    const props = { class: "qd-group-head", type: "button", "aria-expanded": String(open), on: { click: toggle } };
    const label = [icon(open ? "chevronDown" : "chevronRight", true), h("span", { class: "qd-b" }, word)];
    const head = h("button", props, label, h("span", { class: "qd-dim" }, count(group.names.length, "metric")));
    if (!open) for (const name of group.names) this.drop(name);
    return h("div", { class: "qd-group" }, head, open && this.row(group.names));
  }

  private row(names: readonly string[]): HTMLElement {
    return h("div", { class: "qd-charts", "data-single": names.length === 1 }, names.map((name) => this.chart(name).el));
  }

  private chart(name: string): Chart {
    let chart = this.charts.get(name);
    if (!chart) {
      chart = new Chart(name, this.around);
      this.charts.set(name, chart);
      this.watch.observe(chart.el);
      if (this.charts.size <= AT_ONCE) this.painter.seen(chart, true);
    }
    return chart;
  }

  private drop(name: string): void {
    const chart = this.charts.get(name);
    if (!chart) return;
    this.watch.unobserve(chart.el);
    this.painter.forget(chart);
    chart.dispose();
    this.charts.delete(name);
  }

  private seen(entries: readonly IntersectionObserverEntry[]): void {
    for (const entry of entries) {
      const chart = [...this.charts.values()].find((one) => one.el === entry.target);
      if (chart) this.painter.seen(chart, entry.isIntersecting);
    }
  }

  // ---- what the reader does

  private redraw(): void {
    const pad = this.width < NARROW ? 24 : 32;
    const two = this.width >= WIDE && this.settings.columns === 2;
    for (const chart of this.charts.values()) {
      const half = two && !chart.el.parentElement?.hasAttribute("data-single");
      const width = half ? (this.width - pad - 12) / 2 : this.width - pad;
      chart.resize(width, this.width < NARROW ? HEIGHT.narrow : half ? HEIGHT.two : HEIGHT.one);
    }
    setAttr(this.grid, "data-two", two);
    this.painter.ask(...this.charts.values());
  }

  private changedOptions(): void {
    this.options.mark(this.width >= WIDE);
    if (!this.settings.zoom) this.store.coarse();
    this.redraw();
  }

  private changedRuns(): void {
    this.legends();
    this.redraw();
  }

  private zoom(range: readonly [number, number] | null): void {
    this.settings.zoom = range;
    this.changedOptions();
    clearTimeout(this.zoomTimer);
    if (range) this.zoomTimer = setTimeout(() => this.askDetail(range), 120);
  }

  private askDetail(range: readonly [number, number]): void {
    this.dropDetail = true;
    for (const name of this.charts.keys()) {
      const [first, last] = this.steps(name, range);
      const margin = (last - first) * 0.1;
      const [first_step, last_step] = [Math.floor(first - margin), Math.ceil(last + margin)];
      if (this.store.canRefine(name, first, last)) this.send({ kind: "zoom", name, first_step, last_step });
    }
  }

  private steps(name: string, range: readonly [number, number]): [number, number] {
    const line = meanOf(this.store.own().lines(name), this.settings);
    if (this.settings.x === "step" || !line) return [range[0], range[1]];
    const at = (time: number): number => line.step[Math.max(0, line.nearest(time, line.time))] ?? 0;
    return [at(range[0]), at(range[1])];
  }

  private key(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey || !/^\d$/.test(event.key)) return;
    if (event.target instanceof HTMLInputElement && event.target.type !== "range") return;
    event.preventDefault();
    event.stopPropagation();
    this.legend.isolate(Number(event.key));
  }

  private fold(): void {
    const open = this.el.hasAttribute("data-options");
    setAttr(this.el, "data-options", !open);
    setAttr(this.gear, "aria-expanded", String(!open));
  }
}
