/** A row of tabs of which at most one is open: a click on the open one closes it. */

import { arrows, fill, h, setAttr, setText, show } from "./dom";

export interface Tab {
  id: string;
  word: string;
  el: HTMLElement;
  /** Counts are red: errors. */
  bad?: boolean;
}

let made = 0;

export class Tabs {
  readonly el: HTMLElement;
  private readonly buttons = new Map<string, { button: HTMLButtonElement; count: HTMLElement; panel: HTMLElement }>();
  private open: string | null = null;
  /** The reader has chosen: nothing opens by itself any more. */
  private chosen = false;

  constructor(
    tabs: readonly Tab[],
    private readonly opened: (id: string | null) => void,
  ) {
    const row = h("div", { class: "qd-tabs", role: "group", "aria-label": "Details" });
    this.el = h("div", { class: "qd-sec" }, row);
    for (const tab of tabs) row.append(this.make(tab));
    arrows(row, "button");
  }

  /** Opens a tab unless the reader has chosen one. */
  suggest(id: string): void {
    if (!this.chosen && this.open !== id) this.set(id);
  }

  count(id: string, n: number): void {
    const tab = this.buttons.get(id);
    if (!tab) return;
    setText(tab.count, String(n));
    show(tab.count, n > 0);
  }

  private make(tab: Tab): HTMLElement {
    const id = `qd-tab-${(made += 1)}`;
    const panel = h("div", { class: "qd-tabpanel", id, role: "region", "aria-label": tab.word, hidden: true }, tab.el);
    const count = h("span", { class: tab.bad ? "qd-ct qd-ct-err" : "qd-ct", hidden: true });
    const click = (): void => {
      this.chosen = true;
      this.set(this.open === tab.id ? null : tab.id);
    };
    const props = { class: "qd-tab", type: "button", "aria-expanded": "false", "aria-controls": id, on: { click } };
    const button = h("button", props);
    fill(button, tab.word, " ", count);
    this.buttons.set(tab.id, { button, count, panel });
    this.el.append(panel);
    return button;
  }

  private set(id: string | null): void {
    this.open = id;
    for (const [name, { button, panel }] of this.buttons) {
      setAttr(button, "aria-expanded", String(name === id));
      show(panel, name === id);
    }
    this.opened(id);
  }
}
