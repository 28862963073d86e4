/** A long list of rows of one height, of which only those in sight are in the page; it follows its end until
 * somebody scrolls up. Knows nothing of what a row is made of. Made by output.ts. */

import { h } from "../basics/dom";

export const ROW_PX = 20;
const LEAST_ROWS = 3;
const MOST_ROWS = 20;
/** Rows drawn beyond either edge. */
const MARGIN = 8;
const PADDING_PX = 12;

export interface Item {
  readonly version: number;
}

interface Drawn {
  readonly el: HTMLElement;
  readonly version: number;
}

export class ListWindow<T extends Item> {
  readonly el: HTMLElement;
  private readonly sheet = h("div", { class: "qd-out-sheet" });
  private readonly resized: ResizeObserver;
  private items: readonly T[] = [];
  private drawn = new Map<T, Drawn>();
  private top_px = 0;
  private following = true;
  private current: T | null = null;

  /** `followed` is called whenever following begins or ends. */
  constructor(
    label: string,
    private readonly draw: (item: T) => HTMLElement,
    private readonly followed: (on: boolean) => void,
  ) {
    const on = { scroll: () => this.scrolled(), keydown: (event: KeyboardEvent) => this.key(event) };
    const props = { class: "qd-out-log", role: "log", "aria-live": "off", "aria-label": label, tabindex: 0, on };
    this.el = h("div", props, this.sheet);
    this.resized = new ResizeObserver(() => this.render());
    this.resized.observe(this.el);
  }

  dispose(): void {
    this.resized.disconnect();
  }

  get follows(): boolean {
    return this.following;
  }

  follow(on: boolean): void {
    if (on !== this.following) {
      this.following = on;
      this.followed(on);
    }
    this.render();
  }

  /** Shows these items; what is in sight stays in sight. `columns`: characters of the longest. */
  update(items: readonly T[], columns: number): void {
    const anchor = this.following ? undefined : this.items[Math.floor(this.top_px / ROW_PX)];
    const offset = this.top_px % ROW_PX;
    this.items = items;
    const rows = Math.min(MOST_ROWS, Math.max(LEAST_ROWS, items.length));
    this.el.style.height = `${rows * ROW_PX + PADDING_PX}px`;
    this.sheet.style.height = `${items.length * ROW_PX}px`;
    this.sheet.style.setProperty("--columns", String(columns));
    const at = anchor === undefined ? -1 : items.indexOf(anchor);
    if (at >= 0) this.scrollTo(at * ROW_PX + offset);
    this.render();
  }

  /** Draws every row anew, for a look that changed. */
  redraw(): void {
    for (const { el } of this.drawn.values()) el.remove();
    this.drawn.clear();
    this.render();
  }

  /** Brings an item to the middle and marks it; null takes the mark away. */
  mark(item: T | null): void {
    if (this.current !== null) this.drawn.get(this.current)?.el.classList.remove("qd-out-current");
    this.current = item;
    const at = item === null ? -1 : this.items.indexOf(item);
    if (at >= 0) {
      const top = at * ROW_PX;
      const seen = top >= this.top_px && top + ROW_PX <= this.top_px + this.el.clientHeight;
      if (!seen) this.follow(false);
      if (!seen) this.scrollTo(Math.max(0, top - (this.el.clientHeight - ROW_PX) / 2));
    }
    this.render();
  }

  /** Index of the first item in sight. */
  get first(): number {
    return Math.floor(this.top_px / ROW_PX);
  }

  private scrollTo(px: number): void {
    this.el.scrollTop = px;
    this.top_px = this.el.scrollTop;
  }

  private scrolled(): void {
    if (this.el.clientHeight === 0) return;
    const before = this.top_px;
    this.top_px = this.el.scrollTop;
    const end = this.el.scrollHeight - this.el.clientHeight;
    if (this.top_px >= end - 4) this.follow(true);
    else if (this.top_px < before) this.follow(false);
    this.render();
  }

  private key(event: KeyboardEvent): void {
    const step = { j: 1, k: -1 }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.el.scrollTop += step * ROW_PX;
  }

  private render(): void {
    const height = this.el.clientHeight;
    if (height === 0) return;
    if (this.following) this.scrollTo(this.el.scrollHeight);
    const first = Math.max(0, this.first - MARGIN);
    const last = Math.min(this.items.length, this.first + Math.ceil(height / ROW_PX) + MARGIN);
    const now = new Map<T, Drawn>();
    for (let at = first; at < last; at++) {
      const item = this.items[at];
      if (item !== undefined) now.set(item, this.place(item, at));
    }
    for (const [item, { el }] of this.drawn) if (now.get(item)?.el !== el) el.remove();
    this.drawn = now;
  }

  private place(item: T, at: number): Drawn {
    const old = this.drawn.get(item);
    const one = old?.version === item.version ? old : { el: this.draw(item), version: item.version };
    const top = `${at * ROW_PX}px`;
    if (one.el.style.top !== top) one.el.style.top = top;
    one.el.classList.toggle("qd-out-current", item === this.current);
    if (one.el.parentNode === null) this.sheet.append(one.el);
    return one;
  }
}
