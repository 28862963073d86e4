/** One metric's chart: uPlot keeps axes, scales and the selection; the lines are drawn here, from our columns. */

import uPlot from "uplot";

import { h, setAttr, setText, show } from "../basics/dom";
import { duration, integer, metric, steps, tick } from "../basics/words";
import type { Colours } from "./colours";
import type { Lines } from "./data";
import { Readout } from "./readout";
import type { Reading } from "./readout";
import type { Settings } from "./settings";
import { meanOf, plain, strokesOf } from "./strokes";
import type { OtherLine, Stroke } from "./strokes";
import { linearScale, logScale, multiples, niceStep, timeStep, timeTick } from "./ticks";
import type { Scale } from "./ticks";
import { band, extent, trace } from "./trace";
import type { Column, Pen, Place } from "./trace";

/** What a chart is told about the world, and what it tells. */
export interface Surroundings {
  readonly settings: Settings;
  colours(): Colours;
  lines(name: string): Lines;
  others(name: string): OtherLine[];
  /** x range that most charts share; null without points. */
  range(): readonly [number, number] | null;
  /** x of the cross-hair in all charts; null takes it away. `spoken`: it was moved by a key. */
  hover(x: number | null, from: Chart, spoken: boolean): void;
  zoom(range: readonly [number, number] | null): void;
}

const PADDING: [number, number, number, number] = [8, 18, 0, 0];
const AXIS = { x: 22, yLeast: 34 };
const TRIANGLE = 4;
/** Points closer than this many pixels run up and down so much that dashes are noise, and costly. */
const DENSE = 3;

export class Chart {
  readonly el: HTMLElement;
  private readonly plot = h("div", { class: "qd-plot" });
  private readonly caption = h("b", { class: "qd-nw" });
  private readonly of = h("span", { class: "qd-dim" }, "mean");
  private readonly said = h("span", { class: "qd-sr", "aria-live": "polite" });
  private readonly readout = new Readout();
  private readonly cross = h("div", { class: "qd-cross", hidden: true });
  private readonly dots = h("div", { class: "qd-dots" });
  private u: uPlot | null = null;
  private made = "";
  private width = 0;
  private height = 0;
  private strokes: Stroke[] = [];
  private rankColumns: Column[] = [];
  private x: [number, number] = [0, 1];
  private y: Scale = linearScale(0, 1, 4);
  private empty = true;
  /** Where the cross-hair is: it stays there while the curves grow. */
  private pointed: number | null = null;

  constructor(
    readonly name: string,
    private readonly around: Surroundings,
  ) {
    const caption = h("figcaption", { class: "qd-caption" }, h("b", { class: "qd-m qd-el", title: name }, name));
    caption.append(this.of, this.caption, this.said);
    this.el = h("figure", { class: "qd-chart", tabindex: 0, role: "group", "aria-roledescription": "chart" });
    this.el.append(caption, this.plot);
    this.el.addEventListener("keydown", (event) => this.key(event));
    this.el.addEventListener("blur", () => this.around.hover(null, this, false));
  }

  dispose(): void {
    this.u?.destroy();
    this.u = null;
  }

  /** Takes a new size; the next `draw` uses it. */
  resize(width: number, height: number): void {
    [this.width, this.height] = [Math.floor(width), height];
  }

  /** Draws all anew: to be called in an animation frame. */
  draw(): void {
    if (this.width < 80) return;
    this.prepare();
    const { settings } = this.around;
    const made = `${settings.x} ${this.logarithmic()}`;
    if (!this.u || made !== this.made) this.make(made);
    const u = this.u;
    if (!u) return;
    if (u.width !== this.width || u.height !== this.height) u.setSize({ width: this.width, height: this.height });
    u.batch(() => {
      u.setScale("x", { min: this.x[0], max: this.x[1] });
      u.setScale("y", { min: this.y.low, max: this.y.high });
      u.redraw(false, true);
    });
    if (this.pointed !== null) this.point(this.pointed, false);
    this.tell();
  }

  /** Shows the cross-hair at x, or none; says the values if a key moved it. */
  point(x: number | null, spoken: boolean): void {
    const u = this.u;
    this.pointed = x;
    const readings = x === null || !u ? [] : this.readings(x, u);
    this.cross.hidden = readings.length === 0;
    this.dots.replaceChildren();
    if (x === null || !u || readings.length === 0) return this.readout.hide();
    const left = u.valToPos(x, "x");
    const { clientWidth: width, clientHeight: height } = u.over;
    this.cross.style.transform = `translateX(${Math.round(left)}px)`;
    this.dots.append(...readings.filter((reading) => reading.y === reading.y).map((reading) => dot(reading, left)).reverse());
    this.readout.place(this.xWords(x), readings, left, width, height);
    if (spoken) {
      const words = readings.map((reading) => `${reading.label} ${metric(reading.value)}`).join(", ");
      setText(this.said, `${this.xWords(x)}: ${words}`);
    }
  }

  private tell(): void {
    const lines = this.around.lines(this.name);
    setText(this.caption, metric(meanOf(lines, this.around.settings)?.lastValue()));
    show(this.of, !this.around.settings.single);
    const range = `${this.xWords(this.x[0])} to ${this.xWords(this.x[1])}`;
    setAttr(this.el, "aria-label", `${this.name}, ${range}. Arrow keys read values`);
  }

  private logarithmic(): boolean {
    return this.around.settings.log && this.y.low > 0;
  }

  // ---- what is to be drawn

  private prepare(): void {
    const { settings } = this.around;
    const lines = this.around.lines(this.name);
    this.strokes = strokesOf(lines, this.around.others(this.name), settings, this.around.colours());
    const drawsBand = settings.many && settings.shows("band");
    this.rankColumns = drawsBand ? settings.ranks.flatMap((rank) => columnOf(lines, rank, settings)) : [];
    this.x = this.xRange();
    const columns = [...this.strokes.map((stroke) => stroke.raw ?? stroke.column), ...this.rankColumns];
    const [first, last] = this.x;
    const linear = settings.log ? null : extent(columns, first, last, false);
    const positive = settings.log ? extent(columns, first, last, true) : null;
    this.empty = !linear && !positive;
    const ticks = this.height > 160 ? 5 : 4;
    if (positive) this.y = logScale(positive[0], positive[1], ticks);
    else this.y = linear ? linearScale(linear[0], linear[1], ticks) : linearScale(0, 1, ticks);
  }

  private xRange(): [number, number] {
    const { settings } = this.around;
    if (settings.zoom) return [settings.zoom[0], settings.zoom[1]];
    let [low, high] = [Infinity, -Infinity];
    for (const { column } of this.strokes) {
      if (column.count === 0) continue;
      low = Math.min(low, column.x[0] ?? Infinity);
      high = Math.max(high, column.x[column.count - 1] ?? -Infinity);
    }
    const shared = this.around.range();
    if (shared && (low > high || high - low > 0.4 * (shared[1] - shared[0]))) [low, high] = shared;
    if (!(low <= high)) return [0, 1];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  }

  // ---- uPlot

  private make(made: string): void {
    this.u?.destroy();
    this.made = made;
    this.u = new uPlot(this.options(), [[0, 1], [null, null]], this.plot);
    this.u.over.append(this.cross, this.dots, this.readout.el);
    this.u.over.addEventListener("mousemove", (event) => this.moved(event));
    this.u.over.addEventListener("mouseleave", () => this.around.hover(null, this, false));
  }

  private options(): uPlot.Options {
    return {
      width: this.width,
      height: this.height,
      padding: PADDING,
      legend: { show: false },
      scales: {
        x: { time: false, auto: false, range: () => this.x },
        y: { auto: false, distr: this.logarithmic() ? 3 : 1, range: () => [this.y.low, this.y.high] },
      },
      axes: this.axes(),
      series: [{}, {}],
      cursor: this.cursor(),
      hooks: { draw: [(u) => this.paint(u)], setSelect: [(u) => this.selected(u)] },
    };
  }

  private axes(): uPlot.Axis[] {
    const colour = (pick: (colours: Colours) => string) => () => pick(this.around.colours());
    const { font } = this.around.colours();
    const common = { font, stroke: colour((c) => c.fg2), ticks: { show: false }, filter: (_: uPlot, all: number[]) => all };
    const edge = { show: true, stroke: colour((c) => c.line), width: 1 };
    const grid = { stroke: colour((c) => c.soft), width: 1 };
    return [
      { ...common, size: AXIS.x, gap: 6, grid: { show: false }, border: edge, splits: () => this.xTicks(), values: (_, all) => all.map((value) => this.xLabel(value)) },
      { ...common, gap: 6, grid, size: (u, values) => this.yWidth(u, values), splits: () => this.y.ticks, values: (_, all) => all.map((value) => tick(value, this.y.step || value)) },
    ];
  }

  private yWidth(u: uPlot, values: string[] | null): number {
    const { font } = this.around.colours();
    const widest = Math.max(0, ...(values ?? []).map((value) => textWidth(u.ctx, font, value)));
    return Math.max(AXIS.yLeast, Math.ceil(widest) + 10);
  }

  private xStep(): number {
    const rough = (this.x[1] - this.x[0]) / Math.max(2, (this.width - AXIS.yLeast) / 92);
    return this.around.settings.x === "time" ? timeStep(rough) : Math.max(1, niceStep(rough, [1, 2, 3, 5, 10]));
  }

  private xTicks(): number[] {
    return multiples(this.x[0], this.x[1], this.xStep());
  }

  private xLabel(value: number): string {
    if (this.around.settings.x === "step") return steps(value);
    return timeTick(value, this.xStep());
  }

  private xWords(value: number): string {
    return this.around.settings.x === "step" ? `step ${integer(Math.round(value))}` : `after ${duration(value / 1000)}`;
  }

  private cursor(): uPlot.Cursor {
    return {
      x: false,
      y: false,
      points: { show: false },
      drag: { x: true, y: false, setScale: false, dist: 5 },
      bind: {
        mousedown: (u, _target, handler) => (event: MouseEvent) => {
          if (event.button === 0 && event.shiftKey) this.pan(u, event);
          else handler(event);
          return null;
        },
        dblclick: () => () => {
          this.around.zoom(null);
          return null;
        },
      },
    };
  }

  private selected(u: uPlot): void {
    const { left, width } = u.select;
    if (width < 5) return;
    const range = [u.posToVal(left, "x"), u.posToVal(left + width, "x")] as const;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.around.zoom(range);
  }

  private pan(u: uPlot, start: MouseEvent): void {
    const [first, last] = this.x;
    const perPixel = (last - first) / Math.max(1, u.over.clientWidth);
    const move = (event: MouseEvent): void => {
      const by = (start.clientX - event.clientX) * perPixel;
      this.around.zoom([first + by, last + by]);
    };
    const end = new AbortController();
    document.addEventListener("mousemove", move, { signal: end.signal });
    document.addEventListener("mouseup", () => end.abort(), { signal: end.signal, once: true });
  }

  // ---- drawing

  private paint(u: uPlot): void {
    if (this.empty) return;
    const { ctx, bbox } = u;
    const [px, py] = this.places(u);
    const [left, right] = [bbox.left, bbox.left + bbox.width];
    const scale = uPlot.pxRatio;
    const gaps: [number, string][] = [];
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top - 2 * scale, bbox.width + 2 * scale, bbox.height + 4 * scale);
    ctx.clip();
    if (this.rankColumns.length > 0) this.paintBand(ctx, px, py, left, right);
    for (const stroke of this.strokes) {
      const { raw, column } = stroke;
      if (raw) paintLine(ctx, stroke, raw, 0.22, (pen, grain) => trace(pen, raw, px, py, { left, right, grain }));
      const gap = (x: number): void => void gaps.push([x, stroke.colour]);
      paintLine(ctx, stroke, column, stroke.alpha, (pen, grain) => trace(pen, column, px, py, { left, right, grain, gap }));
    }
    paintGaps(ctx, gaps, bbox.top + bbox.height);
    ctx.restore();
  }

  private paintBand(ctx: CanvasRenderingContext2D, px: Place, py: Place, left: number, right: number): void {
    const shape = band(this.rankColumns, px, py, left, right);
    ctx.globalAlpha = 0.16;
    ctx.fillStyle = this.around.colours().mean;
    ctx.beginPath();
    shape.x.forEach((x, at) => ctx.lineTo(x, shape.top[at] ?? 0));
    for (let at = shape.x.length - 1; at >= 0; at -= 1) ctx.lineTo(shape.x[at] ?? 0, shape.bottom[at] ?? 0);
    ctx.fill();
  }

  private places(u: uPlot): [Place, Place] {
    const { left, top, width, height } = u.bbox;
    const [first, last] = this.x;
    const perX = width / (last - first);
    const log = this.logarithmic();
    const [low, high] = log ? [Math.log(this.y.low), Math.log(this.y.high)] : [this.y.low, this.y.high];
    const perY = height / (high - low);
    const px: Place = (value) => left + (value - first) * perX;
    if (!log) return [px, (value) => top + (high - value) * perY];
    return [px, (value) => (value > 0 ? top + (high - Math.log(value)) * perY : NaN)];
  }

  // ---- the cross-hair

  private moved(event: MouseEvent): void {
    const u = this.u;
    if (!u) return;
    const left = event.clientX - u.over.getBoundingClientRect().left;
    this.around.hover(this.snapped(u.posToVal(left, "x")), this, false);
  }

  private main(): Stroke | undefined {
    return this.strokes.find((stroke) => stroke.key === "mean") ?? this.strokes[0];
  }

  private snapped(x: number): number {
    const column = this.main()?.column;
    const at = this.main()?.line.nearest(x, column?.x) ?? -1;
    return column?.x[at] ?? x;
  }

  private readings(x: number, u: uPlot): Reading[] {
    if (x < this.x[0] || x > this.x[1]) return [];
    const found = this.strokes.flatMap((stroke) => reading(stroke, x, u));
    const [mean, rest] = [found.filter(({ key }) => key === "mean"), found.filter(({ key }) => key !== "mean")];
    return [...mean, ...this.ends(x, u), ...rest];
  }

  /** Which ranks have the least and the greatest value, where they are drawn as a band. */
  private ends(x: number, u: uPlot): Reading[] {
    if (this.rankColumns.length === 0) return [];
    const { settings } = this.around;
    const lines = this.around.lines(this.name);
    const all = settings.ranks.flatMap((rank) => {
      const [column] = columnOf(lines, rank, settings);
      const value = column?.middle[lines.get(rank)?.nearest(x, column.x) ?? -1];
      return value !== undefined && Number.isFinite(value) ? [{ rank, value }] : [];
    });
    if (all.length === 0) return [];
    const least = all.reduce((a, b) => (b.value < a.value ? b : a));
    const most = all.reduce((a, b) => (b.value > a.value ? b : a));
    return [{ word: "most", ...most }, { word: "least", ...least }].map(({ word, rank, value }) => {
      const colour = this.around.colours().ranks[rank % 8] ?? "";
      return { key: rank, label: `${word}, rank ${rank}`, colour, dashed: rank % 8 >= 4, value, y: u.valToPos(value, "y") };
    });
  }

  private key(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") {
      this.around.hover(null, this, true);
    } else if (step !== undefined && !event.altKey && !event.ctrlKey && !event.metaKey) {
      this.move(event.shiftKey ? 10 * step : step);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private at: number | null = null;

  private move(by: number): void {
    const main = this.main();
    if (!main || main.line.count === 0) return;
    const { x, count } = main.column;
    const before = this.at === null ? count - 1 : main.line.nearest(this.at, x) + by;
    this.at = x[Math.min(count - 1, Math.max(0, before))] ?? null;
    this.around.hover(this.at, this, true);
  }
}

const widths = new Map<string, number>();

/** In CSS pixels. Measuring is slow, and an axis has the same few labels all the time. */
function textWidth(ctx: CanvasRenderingContext2D, font: string, text: string): number {
  const key = `${font} ${text}`;
  let width = widths.get(key);
  if (width === undefined) {
    if (widths.size > 500) widths.clear();
    const before = ctx.font; // uPlot remembers which one it has set
    ctx.font = font;
    widths.set(key, (width = ctx.measureText(text).width));
    ctx.font = before;
  }
  return width;
}

function columnOf(lines: Lines, rank: number, settings: Settings): Column[] {
  const line = lines.get(rank);
  return line ? [plain(line, settings)] : [];
}

function reading(stroke: Stroke, x: number, u: uPlot): Reading[] {
  const { column } = stroke;
  const at = stroke.line.nearest(x, column.x);
  const [first, last] = [column.x[0] ?? NaN, column.x[column.count - 1] ?? NaN];
  if (at < 0 || x < first || x > last) return [];
  const value = column.middle[at] ?? NaN;
  const y = Number.isFinite(value) ? u.valToPos(value, "y") : NaN;
  const { key, label, colour } = stroke;
  return [{ key, label, colour, dashed: stroke.dash.length > 0, value, y }];
}

function dot(reading: Reading, left: number): HTMLElement {
  const mean = reading.key === "mean";
  const at = `translate(${left.toFixed(1)}px, ${reading.y.toFixed(1)}px)`;
  return h("i", { class: mean ? "qd-dot qd-dot-mean" : "qd-dot", style: `background:${reading.colour};transform:${at}` });
}

function paintLine(ctx: CanvasRenderingContext2D, stroke: Stroke, column: Column, alpha: number, draw: (pen: Pen, grain: number) => void): void {
  const scale = uPlot.pxRatio;
  ctx.globalAlpha = Math.min(alpha, stroke.alpha);
  ctx.strokeStyle = stroke.colour;
  ctx.fillStyle = stroke.colour;
  ctx.lineWidth = (column.count === 1 ? 5 : alpha < stroke.alpha ? 1 : stroke.width) * scale;
  const dense = column.count * DENSE * scale > ctx.canvas.width && column.low !== column.middle;
  ctx.lineJoin = dense ? "bevel" : "round";
  ctx.setLineDash(dense || column.count === 1 ? [] : stroke.dash.map((part) => part * scale));
  ctx.beginPath();
  ctx.lineCap = column.count > 1 ? "butt" : "round";
  draw(ctx, (dense ? 2 : 1) * scale);
  ctx.stroke();
}

/** One mark for gaps that lie so close that the marks would run into one another; a rank's before the mean's. */
function paintGaps(ctx: CanvasRenderingContext2D, gaps: readonly [number, string][], bottom: number): void {
  const apart = 3 * TRIANGLE * uPlot.pxRatio;
  const marked = new Set<number>();
  for (const [x, colour] of gaps) {
    const place = Math.round(x / apart);
    if (!marked.has(place)) paintGap(ctx, x, bottom, colour);
    marked.add(place);
  }
}

function paintGap(ctx: CanvasRenderingContext2D, x: number, bottom: number, colour: string): void {
  const scale = uPlot.pxRatio;
  ctx.globalAlpha = 1;
  ctx.strokeStyle = colour;
  ctx.lineWidth = scale;
  ctx.setLineDash([]);
  ctx.beginPath();
  ctx.moveTo(x - TRIANGLE * scale, bottom - scale);
  ctx.lineTo(x + TRIANGLE * scale, bottom - scale);
  ctx.lineTo(x, bottom - (1 + 1.7 * TRIANGLE) * scale);
  ctx.closePath();
  ctx.stroke();
}
