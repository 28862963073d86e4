/** The list of runs and checkpoints: lines of one height, of which only those in sight are in the page. A tree for
 * screen readers; one line is the current one, and keys move it. Made by browser.ts. */

import { fill, h, setAttr, show } from "../basics/dom";
import { icon } from "../basics/icons";
import { keyOf } from "./items";
import type { Items, Item, SortKey } from "./items";
import { headLine, rowLine } from "./row";
import type { Look } from "./row";

export const LINE_PX = 29;
const MOST_LINES = 20;
const MARGIN = 6;
const COLUMNS = 2;
let made = 0;

export interface ListCalls {
  /** Another line is the current one. */
  chosen(id: string): void;
  entered(): void;
  marked(id: string): void;
  pinned(id: string): void;
  deleted(id: string): void;
  searched(): void;
  sorted(): void;
}

export class List {
  readonly el: HTMLElement;
  private readonly head = h("div", { class: "qd-ck-heads", role: "group", "aria-label": "Sort by" });
  private readonly box: HTMLElement;
  private readonly sheet = h("div", { class: "qd-ck-sheet", role: "presentation" });
  private readonly empty = h("div", { class: "qd-empty", hidden: true });
  private readonly resized: ResizeObserver;
  private readonly id = `qd-ck-${(made += 1)}`;
  private lines: Item[] = [];
  private drawn = new Map<string, HTMLElement>();
  private current: string | null = null;
  private look: Look = { metrics: [], nowMs: 0, marks: new Map() };

  constructor(
    private readonly items: Items,
    private readonly calls: ListCalls,
  ) {
    const on = { scroll: () => this.render(), keydown: (event: KeyboardEvent) => this.key(event), click: (event: MouseEvent) => this.click(event) };
    const props = { class: "qd-ck-box", role: "tree", tabindex: 0, "aria-label": "Checkpoints", "data-lm-suppress-shortcuts": "true" };
    this.box = h("div", { ...props, on }, this.sheet);
    this.el = h("div", { class: "qd-ck-list" }, this.head, this.box, this.empty);
    this.resized = new ResizeObserver(() => this.render());
    this.resized.observe(this.box);
  }

  dispose(): void {
    this.resized.disconnect();
  }

  focus(): void {
    this.box.focus();
  }

  get chosen(): string | null {
    return this.current;
  }

  /** Draws all anew. What was the current line stays it, or the one that took its place. */
  update(marks: ReadonlyMap<string, string>, nowMs: number, emptiness: Node): void {
    const at = this.lines.findIndex((line) => keyOf(line) === this.current);
    this.lines = this.items.lines();
    this.look = { metrics: this.items.metrics().slice(0, COLUMNS), nowMs, marks };
    if (!this.lines.some((line) => keyOf(line) === this.current)) this.replace(Math.max(0, at));
    this.drawHead();
    const rows = Math.min(MOST_LINES, this.lines.length);
    this.box.style.height = `${rows * LINE_PX}px`;
    this.sheet.style.height = `${this.lines.length * LINE_PX}px`;
    for (const el of this.drawn.values()) el.remove();
    this.drawn.clear();
    show(this.box, rows > 0);
    show(this.empty, rows === 0);
    if (rows === 0) fill(this.empty, emptiness);
    this.render();
  }

  /** The nearest checkpoint to this place becomes the current line. */
  private replace(at: number): void {
    const isRow = (line: Item | undefined): boolean => line?.kind === "row";
    const after = this.lines.slice(at).find(isRow);
    const before = this.lines.slice(0, at).reverse().find(isRow);
    const next = after ?? before ?? this.lines[0];
    this.current = next === undefined ? null : keyOf(next);
    if (next?.kind === "row") this.calls.chosen(next.row.id);
  }

  choose(id: string): void {
    this.current = id;
    const at = this.lines.findIndex((line) => keyOf(line) === id);
    const top = at * LINE_PX;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + LINE_PX > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + LINE_PX - this.box.clientHeight;
    this.render();
    if (this.lines[at]?.kind === "row") this.calls.chosen(id);
  }

  // ---- drawing

  private drawHead(): void {
    const { order } = this.items;
    const one = (key: SortKey, word: string, name: string): HTMLElement => {
      const on = order.key === key;
      const click = (): void => {
        Object.assign(order, { key, down: on ? !order.down : true });
        this.calls.sorted();
      };
      const said = on ? `, sorted ${order.down ? "downwards" : "upwards"}` : "";
      const label = `Sort by ${word.toLowerCase()}${said}`;
      const arrow = on && h("span", { class: order.down ? "qd-ck-arrow" : "qd-ck-arrow qd-ck-up" }, icon("chevronDown", true));
      const props = { class: `qd-ck-sort ${name}`, type: "button", "aria-label": label, "aria-pressed": String(on), title: word };
      return h("button", { ...props, "data-key": key, on: { click } }, h("span", { class: "qd-el" }, word), arrow);
    };
    const held = document.activeElement instanceof HTMLElement && this.head.contains(document.activeElement) ? document.activeElement.dataset["key"] : undefined;
    const metrics = this.look.metrics.map((name, at) => one(`:${name}`, name, `qd-ck-r qd-ck-m${at}`));
    fill(this.head, one("step", "Step", "qd-ck-r"), one("age", "Age", ""), one("size", "Size", "qd-ck-r qd-ck-size"), ...metrics, h("span"));
    this.el.dataset["metrics"] = String(metrics.length);
    for (const button of this.head.querySelectorAll("button")) if (held !== undefined && button.dataset["key"] === held) button.focus();
  }

  private render(): void {
    const height = this.box.clientHeight;
    if (height === 0) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / LINE_PX) - MARGIN);
    const last = Math.min(this.lines.length, Math.ceil((this.box.scrollTop + height) / LINE_PX) + MARGIN);
    const now = new Map<string, HTMLElement>();
    let before: HTMLElement | null = null;
    for (let at = first; at < last; at += 1) {
      const line = this.lines[at];
      if (line === undefined) continue;
      const el = this.drawn.get(keyOf(line)) ?? this.draw(line, at);
      now.set(keyOf(line), el);
      if (el.parentNode === null) this.sheet.insertBefore(el, before === null ? this.sheet.firstChild : before.nextSibling);
      before = el;
      const chosen = keyOf(line) === this.current;
      setAttr(el, "aria-selected", String(chosen));
      if (chosen) setAttr(this.box, "aria-activedescendant", el.id);
    }
    for (const [key, el] of this.drawn) if (!now.has(key)) el.remove();
    this.drawn = now;
  }

  private draw(line: Item, at: number): HTMLElement {
    const el = line.kind === "group" ? headLine(line) : rowLine(line, this.look);
    el.style.top = `${at * LINE_PX}px`;
    el.id = `${this.id}-${keyOf(line).replace(/[^\w-]/g, "_")}`;
    el.dataset["key"] = keyOf(line);
    setAttr(el, "aria-setsize", this.lines.length);
    setAttr(el, "aria-posinset", at + 1);
    return el;
  }

  // ---- keys and clicks

  private click(event: MouseEvent): void {
    const key = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-key]")?.dataset["key"] : undefined;
    const line = this.lines.find((one) => keyOf(one) === key);
    if (line === undefined) return;
    if (line.kind === "group") this.fold(line.group.id, line.open);
    this.choose(keyOf(line));
  }

  private fold(id: string, folded: boolean): void {
    if (folded) this.items.folded.add(id);
    else this.items.folded.delete(id);
    this.calls.sorted();
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.lines.findIndex((line) => keyOf(line) === this.current);
    const page = Math.max(1, Math.floor(this.box.clientHeight / LINE_PX) - 1);
    const steps: Record<string, number> = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -at, End: this.lines.length - 1 - at };
    const step = steps[event.key];
    if (step !== undefined) {
      const next = this.lines[Math.min(this.lines.length - 1, Math.max(0, at + step))];
      if (next !== undefined) this.choose(keyOf(next));
    } else if (!this.act(event.key, this.lines[at])) return;
    event.preventDefault();
    event.stopPropagation();
  }

  private act(key: string, line: Item | undefined): boolean {
    if (key === "/") this.calls.searched();
    else if (line === undefined) return false;
    else if (line.kind === "group") {
      if (!["Enter", " ", "ArrowLeft", "ArrowRight"].includes(key)) return false;
      this.fold(line.group.id, key === "ArrowLeft" || (key !== "ArrowRight" && line.open));
    } else if (key === "Enter") this.calls.entered();
    else if (key === " ") this.calls.marked(line.row.id);
    else if (key === "p" || key === "P") this.calls.pinned(line.row.id);
    else if (key === "Delete" || key === "Backspace") this.calls.deleted(line.row.id);
    else if (key === "ArrowLeft") this.choose(line.group.id);
    else return false;
    return true;
  }
}
