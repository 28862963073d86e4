/** The strip at the top of a view that says what is amiss. */

import { iconButton } from "./buttons";
import { fill, h, show } from "./dom";
import type { Child } from "./dom";
import { icon } from "./icons";
import { clock } from "./words";

/** Says what went wrong, until somebody closes it. */
export function complain(el: HTMLElement, words: Child): void {
  const close = iconButton("cross", "Close this notice");
  close.addEventListener("click", () => show(el, false));
  fill(el, icon("warning"), words, close);
  show(el, true);
}

/** Says that the kernel has not answered for so long. */
export function tellSilence(el: HTMLElement, silentMs: number): void {
  const at = clock(Date.now() - silentMs);
  fill(el, icon("hourglass"), h("span", { class: "qd-grow" }, `The kernel is busy or gone: this view shows the state of ${at}`));
  show(el, true);
}
