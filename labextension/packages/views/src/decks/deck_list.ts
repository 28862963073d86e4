/** The decks of a run by name: a list, or a select in a narrow view. Made by decks.ts. */

import type { DeckHead } from "@quarterdeck/protocol/run";

import { arrows, fill, h, setAttr } from "../basics/dom";
import { icon } from "../basics/icons";
import { count } from "../basics/words";

export class DeckList {
  readonly el: HTMLElement;
  private readonly nav = h("nav", { class: "qd-dk-list", "aria-label": "Decks" });
  private readonly select: HTMLSelectElement;
  private drawn = "";

  constructor(private readonly choose: (name: string) => void) {
    const change = (): void => this.choose(this.select.value);
    this.select = h("select", { class: "qd-inp qd-dk-select", "aria-label": "Deck", on: { change } });
    this.nav.addEventListener("keydown", jk);
    arrows(this.nav, "button");
    this.nav.addEventListener("focusin", (event) => this.focused(event.target));
    this.el = h("div", { class: "qd-dk-side" }, this.select, this.nav);
  }

  update(decks: readonly DeckHead[], chosen: string): void {
    const now = JSON.stringify(decks.map((deck) => [deck.name, deck.automatic, written(deck)]));
    if (now !== this.drawn) this.draw(decks);
    this.drawn = now;
    if (this.select.value !== chosen) this.select.value = chosen;
    for (const button of this.nav.querySelectorAll("button")) {
      const on = button.dataset["deck"] === chosen;
      setAttr(button, "aria-current", on && "true");
      setAttr(button, "tabindex", on ? 0 : -1);
    }
  }

  private draw(decks: readonly DeckHead[]): void {
    const held = document.activeElement;
    const focused = held instanceof HTMLElement && this.nav.contains(held) ? held.dataset["deck"] : undefined;
    const groups = [
      ["Written by the run", decks.filter((deck) => !deck.automatic)],
      ["Automatic", decks.filter((deck) => deck.automatic)],
    ] as const;
    const some = groups.filter(([, members]) => members.length > 0);
    fill(this.nav, ...some.map(([label, members]) => this.group(label, members)));
    fill(this.select, ...some.map(([label, members]) => optgroup(label, members)));
    for (const button of this.nav.querySelectorAll("button"))
      if (focused !== undefined && button.dataset["deck"] === focused) button.focus();
  }

  private group(label: string, decks: readonly DeckHead[]): HTMLElement {
    const head = h("div", { class: "qd-dk-group", "aria-hidden": "true" }, label);
    return h("div", { role: "group", "aria-label": label }, head, ...decks.map((deck) => this.button(deck)));
  }

  private button(deck: DeckHead): HTMLElement {
    const props = { class: "qd-dk-item", "data-deck": deck.name, title: deck.name };
    return h(
      "button",
      { ...props, on: { click: () => this.choose(deck.name) } },
      icon(deck.name === "Timeline" ? "clock" : "deck", true),
      h("span", { class: "qd-grow qd-el" }, deck.name),
      h("span", { class: "qd-dk-count" }, written(deck)),
    );
  }

  /** Moving along the list by keys opens each deck, as in a list of files. */
  private focused(target: EventTarget | null): void {
    const name = target instanceof HTMLElement ? target.dataset["deck"] : undefined;
    if (name !== undefined && target instanceof HTMLElement && target.matches(":focus-visible")) this.choose(name);
  }
}

export function written(deck: DeckHead): string {
  if (deck.size_bytes === 0) return "empty";
  return deck.ranks.length === 0 ? "" : count(deck.ranks.length, "rank");
}

function optgroup(label: string, decks: readonly DeckHead[]): HTMLElement {
  const options = decks.map((deck) => h("option", { value: deck.name }, deck.name));
  return h("optgroup", { label }, ...options);
}

/** `j` and `k` are the arrows. */
function jk(event: KeyboardEvent): void {
  const key = { j: "ArrowDown", k: "ArrowUp" }[event.key];
  if (key === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  event.stopPropagation();
  event.target?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
}
