/** One rank or all of them: buttons, or a list where the ranks are many. Used by the panels of output and decks. */

import { arrows, fill, h, setAttr } from "./dom";
import { rankChip } from "./rank_chip";

/** More ranks than these are chosen from a list. */
const MOST_BUTTONS = 8;

export interface ChoiceLook {
  /** What is chosen, for those who do not see it. */
  readonly label: string;
  readonly all: string;
  /** Classes of the box around the buttons, and of each. */
  readonly box: string;
  readonly button: string | null;
}

export class RankChoice {
  readonly el = h("div", { class: "qd-choice" });
  private drawn = "";

  constructor(
    private readonly look: ChoiceLook,
    private readonly choose: (rank: number | null) => void,
  ) {
    arrows(this.el, "button");
  }

  /** Offers these ranks; none is no choice. */
  update(ranks: readonly number[], chosen: number | null): void {
    const now = ranks.join();
    if (now !== this.drawn) this.draw(ranks);
    this.drawn = now;
    const value = String(chosen ?? "");
    for (const el of this.el.querySelectorAll("button")) {
      setAttr(el, "aria-pressed", String(el.dataset["rank"] === value));
    }
    for (const el of this.el.querySelectorAll("select")) el.value = value;
  }

  private draw(ranks: readonly number[]): void {
    if (ranks.length === 0) this.el.replaceChildren();
    else fill(this.el, ranks.length > MOST_BUTTONS ? this.select(ranks) : this.buttons(ranks));
  }

  private buttons(ranks: readonly number[]): HTMLElement {
    const { label, all, box, button } = this.look;
    const one = (rank: number | null): HTMLElement => {
      const props = { class: button, "data-rank": rank ?? "", on: { click: () => this.choose(rank) } };
      return h("button", props, rank === null ? all : rankChip(rank));
    };
    return h("div", { class: box, role: "group", "aria-label": label }, one(null), ...ranks.map(one));
  }

  private select(ranks: readonly number[]): HTMLElement {
    const { label, all } = this.look;
    const change = (event: Event): void => {
      const { value } = event.currentTarget as HTMLSelectElement;
      this.choose(value === "" ? null : Number(value));
    };
    const options = ranks.map((rank) => h("option", { value: rank }, `Rank ${rank}`));
    const props = { class: "qd-inp", "aria-label": label, on: { change } };
    return h("select", props, h("option", { value: "" }, all), ...options);
  }
}
