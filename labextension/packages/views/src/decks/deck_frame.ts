/** Decks' pages in sandboxed frames: never with our origin. A new version replaces the old once it has loaded, so
 * that nothing flickers or jumps. Made by decks.ts. */

import { h } from "../basics/dom";
import type { Theme } from "../basics/panel";
import { heightOf, themed } from "./deck_page";

/** A page that says no height gets this one, px. */
const USUAL_PX = 400;
/** How long a loaded page may take to say its height before it is shown all the same. */
const PATIENCE_MS = 300;
/** How long a page may take to load before it is shown as it is. */
const LOAD_MS = 5_000;

export class DeckFrame {
  readonly el = h("div", { class: "qd-dk-frame" });
  private shown: HTMLIFrameElement | null = null;
  private next: HTMLIFrameElement | null = null;
  /** The window of each frame's page. A frame that was taken out of the document and put back has another. */
  private readonly windows = new WeakMap<HTMLIFrameElement, Window>();
  private readonly told = new WeakSet<HTMLIFrameElement>();
  private now: Theme = "light";
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly stop = new AbortController();

  /** `left` is called if a page has gone to another address: it is closed then. */
  constructor(private readonly left: () => void) {
    window.addEventListener("message", (event) => this.heard(event), { signal: this.stop.signal });
  }

  dispose(): void {
    this.stop.abort();
    this.clear();
  }

  clear(): void {
    clearTimeout(this.timer);
    this.el.replaceChildren();
    this.shown = this.next = null;
  }

  /** `keep`: the same deck's next version; the old one stays until this one has loaded. */
  page(name: string, html: string, theme: Theme, keep: boolean): void {
    if (!keep) this.clear();
    this.now = theme;
    this.next?.remove();
    clearTimeout(this.timer);
    const props = { sandbox: "allow-scripts", referrerpolicy: "no-referrer", title: `Deck ${name}` };
    const next = h("iframe", { ...props, class: "qd-dk-next" });
    next.style.height = this.shown?.style.height ?? `${USUAL_PX}px`;
    next.addEventListener("load", () => this.loaded(next));
    next.srcdoc = themed(html, theme);
    this.next = next;
    this.timer = setTimeout(() => this.swap(next), LOAD_MS);
    this.el.append(next);
  }

  /** A page goes over to another theme by itself, and takes the frames in it along. */
  theme(theme: Theme): void {
    this.now = theme;
    for (const frame of [this.shown, this.next]) if (frame !== null) this.tellTheme(frame);
  }

  // The page's origin is opaque, so that no other target can be named; there is nothing secret in it.
  private tellTheme(frame: HTMLIFrameElement): void {
    frame.contentWindow?.postMessage({ quarterdeck: "theme", theme: this.now }, "*");
  }

  private loaded(frame: HTMLIFrameElement): void {
    const page = frame.contentWindow;
    if (page === null) return;
    if (this.windows.get(frame) === page) {
      this.clear();
      this.left();
      return;
    }
    this.windows.set(frame, page);
    this.tellTheme(frame);
    if (frame !== this.next) return;
    clearTimeout(this.timer);
    if (this.told.has(frame)) this.swap(frame);
    else this.timer = setTimeout(() => this.swap(frame), PATIENCE_MS);
  }

  private heard(event: MessageEvent<unknown>): void {
    const frame = [this.next, this.shown].find((one) => one !== null && event.source === one.contentWindow);
    const px = heightOf(event.data);
    if (frame === null || frame === undefined || px === null) return;
    frame.style.height = `${px}px`;
    this.told.add(frame);
    if (frame === this.next && this.windows.has(frame)) this.swap(frame);
  }

  private swap(frame: HTMLIFrameElement): void {
    if (frame !== this.next) return;
    clearTimeout(this.timer);
    this.shown?.remove();
    frame.classList.remove("qd-dk-next");
    this.shown = frame;
    this.next = null;
  }
}
