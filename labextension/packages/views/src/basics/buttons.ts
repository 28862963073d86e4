/** Buttons that are used in more than one room. */

import { h } from "./dom";
import { icon } from "./icons";
import type { IconName } from "./icons";

/** A button that is an icon; its name is read aloud and shown as a tooltip. */
export function iconButton(name: IconName, label: string): HTMLButtonElement {
  return h("button", { class: "qd-ib", type: "button", "aria-label": label, title: label }, icon(name));
}
