/** What every part of the view looks like to the view: an element, a way to show a new state, an end. */

import type { ToKernel } from "@quarterdeck/protocol/run";

export interface Panel<S> {
  readonly el: HTMLElement;
  /** Shows this state, and nothing of an earlier one. Cheap if nothing changed. */
  update(state: S): void;
  /** Ends timers, observers and listeners outside of `el`. */
  dispose(): void;
}

export type Send = (message: ToKernel) => void;

export type Theme = "light" | "dark";
