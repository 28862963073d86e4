/** Chips of ranks, mean, band and compared runs: a click hides, with Alt isolates, a double click resets. */

import { arrows, fill, h, setAttr } from "../basics/dom";
import { rankColour } from "../basics/rank_chip";
import { RUN_TOKENS } from "./colours";
import type { Key, Settings } from "./settings";

export interface Entry {
  key: Key;
  /** On the chip. */
  short: string;
  /** In its tooltip: "rank 2". */
  long: string;
  colour: string;
  dashed: boolean;
}

/** What the legend has for these ranks and compared runs. */
export function entriesOf(settings: Settings, runs: readonly { key: Key; name: string; at: number }[]): Entry[] {
  const ranks = settings.ranks.map((rank) => {
    return { key: rank, short: String(rank), long: `rank ${rank}`, colour: rankColour(rank), dashed: rank % 8 >= 4 };
  });
  const mean: Entry = { key: "mean", short: "mean", long: "the mean over ranks", colour: "var(--qd-mean)", dashed: false };
  const own: Entry = { ...mean, short: "this run", long: "this run" };
  const spread: Entry = { ...mean, key: "band", short: "min to max", long: "the range over ranks", colour: "var(--qd-ctl)" };
  const others = runs.map(({ key, name, at }) => {
    return { key, short: name, long: `run ${name}`, colour: `var(${RUN_TOKENS[at % RUN_TOKENS.length]})`, dashed: true };
  });
  if (settings.single) return others.length > 0 ? [own, ...others] : [];
  return [...(settings.many ? [mean, spread, ...ranks] : [...ranks, mean]), ...others];
}

export class Legend {
  readonly el = h("div", { class: "qd-legend", role: "group", "aria-label": "Lines" });
  private entries: Entry[] = [];
  private chips: HTMLButtonElement[] = [];
  private made = "";

  constructor(
    private readonly settings: Settings,
    private readonly changed: () => void,
  ) {
    arrows(this.el, "button");
    this.el.addEventListener("dblclick", () => this.set(() => settings.reset()));
  }

  keys(): Key[] {
    return this.entries.map((entry) => entry.key);
  }

  update(entries: Entry[]): void {
    this.entries = entries;
    const made = JSON.stringify(entries);
    if (made !== this.made) {
      this.made = made;
      this.chips = entries.map((entry) => this.chip(entry));
      fill(this.el, this.chips);
    }
    setAttr(this.el, "data-many", this.settings.many);
    entries.forEach((entry, at) => this.mark(this.chips[at], entry));
  }

  /** Shows this one only. */
  isolate(key: Key): void {
    if (this.keys().includes(key)) this.set(() => this.settings.isolate(key, this.keys()));
  }

  private mark(chip: HTMLButtonElement | undefined, entry: Entry): void {
    if (!chip) return;
    const shown = this.settings.shows(entry.key);
    setAttr(chip, "aria-pressed", String(shown));
    setAttr(chip, "title", `${shown ? "Hide" : "Show"} ${entry.long}; with Alt: only this one`);
  }

  private chip(entry: Entry): HTMLButtonElement {
    const focus = (key: Key | null) => () => this.set(() => (this.settings.focus = key));
    const click = (event: MouseEvent): void => {
      if (event.detail > 1) return;
      if (event.altKey) this.isolate(entry.key);
      else this.set(() => this.settings.toggle(entry.key));
    };
    const swatch = `qd-sw ${entry.key === "mean" ? "qd-sw-mean" : ""} ${entry.dashed ? "qd-sw-dash" : ""}`;
    const on = { click, mouseenter: focus(entry.key), mouseleave: focus(null) };
    const props = { class: "qd-chip", type: "button", style: `--c:${entry.colour}`, "aria-label": entry.long, on };
    return h("button", props, h("span", { class: swatch }), h("span", { class: "qd-el" }, entry.short));
  }

  private set(change: () => void): void {
    change();
    this.update(this.entries);
    this.changed();
  }
}
