/** How the reader wants the curves to be drawn; shared by all charts of a view. */

import type { Who } from "./data";

export type XAxis = "step" | "time";

/** What has a chip in the legend: a rank, the mean, the band over ranks, or a compared run by `run:ID`. */
export type Key = Who | "band" | `run:${string}`;

/** Above this many ranks they are drawn as a band, and only chosen ones as lines. */
export const LINES_UP_TO = 8;

export class Settings {
  smoothing = 0;
  log = false;
  x: XAxis = "step";
  columns: 1 | 2 = 2;
  /** Drawn thicker while all others fade: the chip under the pointer. */
  focus: Key | null = null;
  /** The range of x values chosen by dragging; null shows all. */
  zoom: readonly [number, number] | null = null;
  ranks: number[] = [];
  private readonly chosen = new Map<Key, boolean>();

  get many(): boolean {
    return this.ranks.length > LINES_UP_TO;
  }

  /** With one rank there is one line: it is its own mean. */
  get single(): boolean {
    return this.ranks.length <= 1;
  }

  shows(key: Key): boolean {
    return this.chosen.get(key) ?? this.byDefault(key);
  }

  toggle(key: Key): void {
    this.chosen.set(key, !this.shows(key));
  }

  /** Only this one; if it is the only one already, all again. */
  isolate(key: Key, all: readonly Key[]): void {
    const alone = this.shows(key) && all.every((other) => other === key || !this.shows(other));
    this.reset();
    if (!alone) for (const other of all) this.chosen.set(other, other === key);
  }

  reset(): void {
    this.chosen.clear();
  }

  private byDefault(key: Key): boolean {
    if (typeof key === "number") return !this.many;
    return key !== "band" || this.many;
  }
}
