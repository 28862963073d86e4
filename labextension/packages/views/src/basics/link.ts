/** A view's line to the kernel: it says now and then that somebody looks, and tells the view when its page comes back
 * into sight. For which answers a view waits, and how long, it knows itself. Made by run/view.ts and
 * checkpoints/browser.ts. */

/** A page in sight says something at least this often: to views that are silent for long the kernel sends nothing. */
export const ALIVE_MS = 20_000;
const BEAT_MS = 1000;

export interface Listener {
  /** Every second, in sight or not. */
  beat(now: number): void;
  /** The page is in sight again, and may have missed what was sent meanwhile. */
  back(hiddenMs: number): void;
}

export class Link<M extends { kind: string }> {
  private spoke = performance.now();
  private hiddenSince: number | null = null;

  constructor(private readonly post: (message: M | { kind: "alive" }) => void) {}

  /** Called once, when the view is in the page; until the signal is aborted. */
  start(listener: Listener, signal: AbortSignal): void {
    const timer = setInterval(() => this.beat(listener), BEAT_MS);
    signal.addEventListener("abort", () => clearInterval(timer), { once: true });
    document.addEventListener("visibilitychange", () => this.visibility(listener), { signal });
  }

  send(message: M | { kind: "alive" }): void {
    this.spoke = performance.now();
    this.post(message);
  }

  private beat(listener: Listener): void {
    const now = performance.now();
    if (!document.hidden && now - this.spoke > ALIVE_MS) this.send({ kind: "alive" });
    listener.beat(now);
  }

  private visibility(listener: Listener): void {
    const now = performance.now();
    if (document.hidden) this.hiddenSince = now;
    else listener.back(this.hiddenSince === null ? 0 : now - this.hiddenSince);
  }
}
