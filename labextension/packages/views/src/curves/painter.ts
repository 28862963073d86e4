/** Draws what has changed in animation frames, at most 20 times a second, and only what can be seen. Where a frame
 * takes long, as on a busy machine, it draws less often, so that the page stays free for half of the time. */

export interface Paintable {
  draw(): void;
}

const LEAST_GAP_MS = 50;
const MOST_GAP_MS = 400;

export class Painter<P extends Paintable> {
  private readonly waiting = new Set<P>();
  private readonly visible = new Set<P>();
  private frame = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private last = -Infinity;
  private gap = LEAST_GAP_MS;

  /** To be drawn in the next frame that may be; later if it cannot be seen now. */
  ask(...parts: readonly P[]): void {
    for (const part of parts) this.waiting.add(part);
    this.plan();
  }

  seen(part: P, visible: boolean): void {
    if (visible) this.visible.add(part);
    else this.visible.delete(part);
    this.plan();
  }

  forget(part: P): void {
    this.waiting.delete(part);
    this.visible.delete(part);
  }

  dispose(): void {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.waiting.clear();
    this.visible.clear();
  }

  private plan(): void {
    if (this.frame || this.timer !== undefined || ![...this.waiting].some((part) => this.visible.has(part))) return;
    const wait = this.last + this.gap - performance.now();
    if (wait <= 4) this.frame = requestAnimationFrame(() => this.paint());
    else this.timer = setTimeout(() => this.due(), wait);
  }

  private due(): void {
    this.timer = undefined;
    this.plan();
  }

  private paint(): void {
    this.frame = 0;
    this.last = performance.now();
    for (const part of [...this.waiting]) {
      if (!this.visible.has(part)) continue;
      this.waiting.delete(part);
      part.draw();
    }
    this.frame = requestAnimationFrame(() => this.painted());
  }

  /** The next frame: all of the last one's work has been done. */
  private painted(): void {
    this.frame = 0;
    this.gap = Math.min(MOST_GAP_MS, Math.max(LEAST_GAP_MS, 2 * (performance.now() - this.last)));
    this.plan();
  }
}
