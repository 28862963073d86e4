/** The decks of a run: names at the left, one page in a sandboxed frame, kept up with while it is in sight.
 *
 * Made by the view; fed with the decks of every `State`, and with the `DeckPage`s that answer this panel's
 * requests. */

import type { DeckHead, DeckPage } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, setText, show } from "../basics/dom";
import { icon, type IconName } from "../basics/icons";
import type { Panel, Send, Theme } from "../basics/panel";
import { RankChoice } from "../basics/rank_choice";
import { openPage, saveAs } from "../basics/save";
import { size } from "../basics/words";
import { DeckFrame } from "./deck_frame";
import { DeckList, written } from "./deck_list";
import { fileName, wrapped } from "./deck_page";

export interface DecksPanel extends Panel<DeckHead[]> {
  page(message: DeckPage): void;
  /** The theme is another now. */
  restyle(): void;
}

/** A deck that changes is asked for at most this often. */
const PAUSE_MS = 1_000;
/** Keys held down in the list pass decks by: only one that is stayed at is asked for. */
const SETTLE_MS = 60;
/** A request that nobody answered is made again after this time. */
const ANSWER_MS = 10_000;

export function decksPanel(send: Send, theme: () => Theme): DecksPanel {
  return new Decks(send, theme);
}

class Decks implements DecksPanel {
  readonly el: HTMLElement;
  private readonly list = new DeckList((name) => this.choose(name, this.rank));
  private readonly frame = new DeckFrame(() => this.left());
  private readonly title = h("span", { class: "qd-b qd-el" });
  private readonly sub = h("span", { class: "qd-s qd-dim qd-nw" });
  private readonly ranks = new RankChoice(
    { label: "Deck of", all: "Merged", box: "qd-seg", button: null },
    (rank) => this.choose(this.name, rank),
  );
  private readonly open = this.button("external", "Open in a new tab", (page) =>
    openPage(wrapped(page.name, page.html, this.theme())),
  );
  private readonly save = this.button("download", "Download this deck", (page) =>
    saveAs(fileName(page.name, page.rank), page.html, "text/html;charset=utf-8"),
  );
  private readonly note = h("div", { class: "qd-empty" });
  private readonly again = h("button", { class: "qd-btn qd-btn-small" }, "Show it again");
  private readonly foot = h("span");
  private readonly footer = h("div", { class: "qd-dk-foot qd-s qd-dim" }, icon("checked"), this.foot);
  private readonly main: HTMLElement;
  private readonly none = h(
    "div",
    { class: "qd-empty" },
    "No decks yet. ",
    h("code", { class: "qd-m" }, 'qd.Deck("name").append(...)'),
    " shows one here.",
  );
  private readonly seen = new ResizeObserver(() => this.want());
  private decks: readonly DeckHead[] = [];
  private name = "";
  private rank: number | null = null;
  private shown: DeckPage | null = null;
  private closed = false;
  private asked_ms = -Infinity;
  private waiting = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly send: Send,
    private readonly theme: () => Theme,
  ) {
    this.again.addEventListener("click", () => this.back());
    const title = h("div", { class: "qd-row qd-grow" }, this.title, this.sub);
    const head = h("div", { class: "qd-dk-head" }, title, this.ranks.el, this.open, this.save);
    this.main = h("div", { class: "qd-dk-main" }, head, this.note, this.frame.el, this.footer);
    const props = { class: "qd-dk", "data-lm-suppress-shortcuts": "true" };
    this.el = h("div", props, this.none, this.list.el, this.main);
    this.seen.observe(this.el);
    this.render();
  }

  update(decks: DeckHead[]): void {
    this.decks = decks;
    if (this.head === undefined) {
      const first = decks.find((deck) => !deck.automatic) ?? decks[0];
      this.choose(first?.name ?? "", null);
    } else this.render();
  }

  page(message: DeckPage): void {
    if (message.name !== this.name || message.rank !== this.rank) return;
    this.waiting = false;
    const keep = this.shown !== null;
    const same = this.shown?.html === message.html;
    this.shown = message;
    if (!same && !this.closed) this.draw(keep);
    this.render();
  }

  restyle(): void {
    this.frame.theme(this.theme());
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.seen.disconnect();
    this.frame.dispose();
  }

  private get head(): DeckHead | undefined {
    return this.decks.find((deck) => deck.name === this.name);
  }

  // ---- asking

  private choose(name: string, rank: number | null): void {
    const head = this.decks.find((deck) => deck.name === name);
    const wanted = head === undefined || head.ranks.length === 0 ? null : rank;
    if (name === this.name && wanted === this.rank && this.shown !== null) return;
    [this.name, this.rank] = [name, wanted];
    this.shown = null;
    this.closed = this.waiting = false;
    this.asked_ms = performance.now() - PAUSE_MS + SETTLE_MS;
    this.frame.clear();
    this.render();
  }

  /** Asks for the open deck if it is in sight, has changed, and was not asked for a moment ago. */
  private want(): void {
    clearTimeout(this.timer);
    const head = this.head;
    if (head === undefined || this.missing(head) || this.closed || this.el.offsetParent === null) return;
    if (this.shown !== null && this.shown.version >= head.version) return;
    const rest_ms = this.asked_ms + (this.waiting ? ANSWER_MS : PAUSE_MS) - performance.now();
    if (rest_ms > 0) {
      this.timer = setTimeout(() => this.want(), rest_ms);
      return;
    }
    this.asked_ms = performance.now();
    this.waiting = true;
    this.send({ kind: "wantdeck", name: this.name, rank: this.rank });
    this.timer = setTimeout(() => this.want(), ANSWER_MS);
  }

  private missing(head: DeckHead): boolean {
    return this.rank !== null && !head.ranks.includes(this.rank);
  }

  // ---- drawing

  private render(): void {
    const head = this.head;
    show(this.none, head === undefined);
    show(this.list.el, head !== undefined);
    show(this.main, head !== undefined);
    if (head === undefined) return this.frame.clear();
    this.list.update(this.decks, this.name);
    setText(this.title, head.name);
    setAttr(this.title, "title", head.name);
    setText(this.sub, written(head));
    this.drawRanks(head);
    this.tell(head);
    this.want();
  }

  private draw(keep: boolean): void {
    const page = this.shown;
    if (page === null) return;
    if (page.html === "") this.frame.clear();
    else this.frame.page(page.name, page.html, this.theme(), keep);
  }

  private tell(head: DeckHead): void {
    const text = this.closed ? "This deck went to another address and was closed." : this.emptiness(head);
    show(this.note, text !== "");
    if (text !== this.note.firstChild?.textContent) fill(this.note, text, this.closed && h("p", null, this.again));
    const html = this.shown?.html ?? "";
    show(this.footer, html !== "" && !this.closed);
    setText(this.foot, `Shown in a sandboxed frame. ${size(html.length)}.`);
    for (const button of [this.open, this.save]) button.disabled = html === "";
  }

  private emptiness(head: DeckHead): string {
    if (this.missing(head)) return `Rank ${this.rank} has not written this deck.`;
    if (this.shown === null) return "Loading.";
    return this.shown.html === "" ? "Nothing has been written to this deck." : "";
  }

  private drawRanks(head: DeckHead): void {
    const all = new Set(this.decks.flatMap((deck) => deck.ranks));
    const choice = head.ranks.length > 0 && all.size > 1;
    this.ranks.update(choice ? [...all].sort((a, b) => a - b) : [], this.rank);
  }

  private button(name: IconName, label: string, act: (page: DeckPage) => void): HTMLButtonElement {
    const click = (): void => {
      if (this.shown !== null) act(this.shown);
    };
    return h("button", { class: "qd-ib", "aria-label": label, title: label, on: { click } }, icon(name));
  }

  private left(): void {
    this.closed = true;
    this.render();
  }

  private back(): void {
    this.closed = false;
    this.draw(false);
    this.render();
  }
}
