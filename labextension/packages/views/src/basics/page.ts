/** Keeps a view in step with the page around it: its theme and its width. */

import { setAttr } from "./dom";
import type { Theme } from "./panel";
import { onTheme, themeOf } from "./theme";

const NARROW_PX = 520;

export interface Changes {
  /** Called whenever the theme may have changed: the colours of one that is called light may be others, too. */
  themed?(theme: Theme): void;
  /** Called with another width than before. */
  resized?(width: number): void;
}

/** Tells `changes` at once and from then on, until the signal is aborted. The element is in the page. */
export function followPage(el: HTMLElement, changes: Changes, signal: AbortSignal): void {
  const retheme = (): void => {
    const theme = themeOf(el);
    setAttr(el, "data-theme", theme);
    changes.themed?.(theme);
  };
  let known = 0;
  const resize = (): void => {
    const width = el.clientWidth;
    if (width === 0 || width === known) return;
    known = width;
    el.classList.toggle("qd-narrow", width < NARROW_PX);
    changes.resized?.(width);
  };
  retheme();
  onTheme(retheme, signal);
  resize();
  const observer = new ResizeObserver(resize);
  observer.observe(el);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
}
