/** The output of all ranks: folded, searched, followed, one rank or all; full logs as files.
 *
 * Made by the view; fed with every `Lines`, and with the `Log`s that answer this panel's requests. */

import type { Lines, Log } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, setText, show } from "../basics/dom";
import { icon } from "../basics/icons";
import type { Panel, Send } from "../basics/panel";
import { rankChip } from "../basics/rank_chip";
import { RankChoice } from "../basics/rank_choice";
import { saveAs } from "../basics/save";
import { count, integer } from "../basics/words";
import { hits, OutputRows, type Row } from "./output_rows";
import { drawRow, MOST_DRAWN } from "./output_row";
import { ListWindow } from "./output_window";

export interface OutputPanel extends Panel<Lines> {
  /** How many ranks the run has; those that print are known without it. */
  world(size: number): void;
  /** Saves a log that came, or says where it is. */
  log(message: Log, bytes: DataView | undefined): void;
}

export function outputPanel(send: Send): OutputPanel {
  return new Output(send);
}

class Output implements OutputPanel {
  readonly el: HTMLElement;
  private readonly lines = new OutputRows();
  private readonly list: ListWindow<Row>;
  private readonly ranks: RankChoice;
  private readonly search: HTMLInputElement;
  private readonly found = h("span", { class: "qd-xs qd-nw", "aria-live": "polite" });
  private readonly follow: HTMLButtonElement;
  private readonly fresh: HTMLButtonElement;
  private readonly empty = h("div", { class: "qd-empty" }, "No output yet.");
  private readonly logs = h("div", { class: "qd-bar-row qd-out-logs", hidden: true });
  private rows: Row[] = [];
  private known: number[] = [];
  private size = 0;
  private rank: number | null = null;
  private query = "";
  private current: Row | null = null;
  private behind = 0;
  private frame = 0;

  constructor(private readonly send: Send) {
    const look = (row: Row): HTMLElement =>
      drawRow(row, { rank: this.rank, known: this.known, query: this.query });
    this.list = new ListWindow<Row>("Output", look, (on) => this.followed(on));
    this.search = this.searchInput();
    this.follow = this.followButton();
    const choice = { label: "Output of", all: "All ranks", box: "qd-out-ranks", button: "qd-chip" };
    this.ranks = new RankChoice(choice, (rank) => this.choose(rank));
    const fresh = { click: () => this.list.follow(true) };
    this.fresh = h("button", { class: "qd-btn qd-btn-small qd-out-fresh", hidden: true, on: fresh });
    const body = h("div", { class: "qd-out-body" }, this.list.el, this.fresh);
    const props = { class: "qd-out", "data-lm-suppress-shortcuts": "true" };
    this.el = h("div", props, this.toolbar(), this.logs, this.empty, body);
    this.el.addEventListener("keydown", (event) => this.key(event));
    this.el.addEventListener("click", (event) => this.clicked(event));
    this.followed(true);
    this.render();
  }

  update(message: Lines): void {
    const added = this.lines.apply(message);
    if (message.whole) this.behind = 0;
    else if (!this.list.follows) this.behind += added.filter(({ ranks }) => this.rank === null || ranks.includes(this.rank)).length;
    this.frame ||= requestAnimationFrame(() => this.render());
  }

  world(size: number): void {
    if (size === this.size) return;
    this.size = size;
    this.frame ||= requestAnimationFrame(() => this.render());
  }

  log(message: Log, bytes: DataView | undefined): void {
    const text = h("span", { class: "qd-s qd-grow" });
    if (message.sent && bytes !== undefined) {
      saveAs(`rank-${message.rank}.log`, bytes, "text/plain");
      fill(text, "Saved as ", h("code", { class: "qd-m" }, `rank-${message.rank}.log`), ".");
    } else {
      fill(text, "Too large to be sent. It is here: ", h("code", { class: "qd-m qd-out-path" }, message.path));
    }
    this.openLogs(rankChip(message.rank), text);
  }

  dispose(): void {
    cancelAnimationFrame(this.frame);
    this.list.dispose();
  }

  // ---- parts

  private toolbar(): HTMLElement {
    const input = h("label", { class: "qd-inp qd-out-search" }, icon("search", true), this.search, this.found);
    const props = { class: "qd-out-full", title: "Full log", "data-full": true };
    const full = h("button", props, h("span", null, "Full log"), icon("external", true));
    const folded = h("span", { class: "qd-s qd-dim qd-nw qd-out-folded" }, "equal lines folded");
    const rest = h("span", { class: "qd-grow" });
    return h("div", { class: "qd-bar-row qd-out-bar" }, this.ranks.el, input, rest, folded, this.follow, full);
  }

  private searchInput(): HTMLInputElement {
    const input = (): void => this.find(this.search.value);
    const keydown = (event: KeyboardEvent): void => {
      if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
      else if (event.key === "Escape") this.leaveSearch();
      else return;
      event.preventDefault();
    };
    const props = { type: "text", placeholder: "Search  /", "aria-label": "Search the output", spellcheck: "false" };
    return h("input", { ...props, autocomplete: "off", on: { input, keydown } });
  }

  private followButton(): HTMLButtonElement {
    const click = (): void => this.list.follow(!this.list.follows);
    const label = "Follow new lines";
    return h("button", { class: "qd-ib", "aria-label": label, title: label, on: { click } }, icon("follow"));
  }

  private drawRanks(): void {
    const known = [...new Set([...this.lines.ranks, ...Array(this.size).keys()])].sort((a, b) => a - b);
    if (known.join() !== this.known.join()) this.list.redraw();
    this.known = known;
    this.ranks.update(known.length < 2 ? [] : known, this.rank);
  }

  // ---- what the user does

  private choose(rank: number | null): void {
    this.rank = rank;
    show(this.logs, false);
    this.list.redraw();
    this.render();
    this.list.follow(true);
  }

  private key(event: KeyboardEvent): void {
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this.search.focus();
      this.search.select();
    }
    // The notebook has commands on plain keys; while one types here they are text.
    if (typing || event.key === "/" || event.key === "j" || event.key === "k") event.stopPropagation();
  }

  private clicked(event: MouseEvent): void {
    if (event.target instanceof Element && event.target.closest("[data-full]") !== null) this.askLog();
  }

  private find(query: string): void {
    this.query = query;
    this.list.redraw();
    const places = hits(this.rows, query);
    const at = places.find((place) => place >= this.list.first) ?? places.at(-1);
    this.go(at === undefined ? null : (this.rows[at] ?? null));
  }

  private step(by: 1 | -1): void {
    const places = hits(this.rows, this.query);
    const now = this.current === null ? -1 : places.indexOf(this.rows.indexOf(this.current));
    const next = now < 0 ? (by > 0 ? 0 : places.length - 1) : (now + by + places.length) % places.length;
    const place = places[next];
    this.go(place === undefined ? null : (this.rows[place] ?? null));
  }

  private go(row: Row | null): void {
    this.current = row;
    this.list.mark(row);
    this.tellFound();
  }

  private leaveSearch(): void {
    if (this.search.value === "") {
      this.list.el.focus();
      return;
    }
    this.search.value = "";
    this.find("");
  }

  private askLog(): void {
    if (this.known.length === 0) return;
    const only = this.rank ?? (this.known.length === 1 ? this.known[0] : undefined);
    if (only !== undefined) this.send({ kind: "wantlog", rank: only });
    else if (this.logs.hidden) this.offerLogs();
    else show(this.logs, false);
  }

  private offerLogs(): void {
    const button = (rank: number): HTMLElement => {
      const on = { click: () => this.send({ kind: "wantlog", rank }) };
      return h("button", { class: "qd-chip", "aria-label": `Full log of rank ${rank}`, on }, rankChip(rank));
    };
    const buttons = h("span", { class: "qd-out-pick" }, ...this.known.map(button));
    this.openLogs(h("span", { class: "qd-s qd-dim" }, "Full log of rank"), buttons);
  }

  private openLogs(...children: Node[]): void {
    const close = { click: () => show(this.logs, false) };
    const button = h("button", { class: "qd-ib", "aria-label": "Close", title: "Close", on: close }, icon("cross"));
    fill(this.logs, ...children, h("span", { class: "qd-grow" }), button);
    show(this.logs, true);
  }

  // ---- drawing

  private render(): void {
    this.frame = 0;
    this.drawRanks();
    this.rows = this.lines.shown(this.rank);
    const longest = this.rows.reduce((most, row) => Math.max(most, row.text.length), 0);
    show(this.empty, this.rows.length === 0);
    show(this.list.el, this.rows.length > 0);
    this.list.update(this.rows, Math.min(longest, MOST_DRAWN + 40));
    this.tellFound();
    this.tellFresh();
  }

  private followed(on: boolean): void {
    if (on) this.behind = 0;
    setAttr(this.follow, "aria-pressed", String(on));
    this.tellFresh();
  }

  private tellFresh(): void {
    show(this.fresh, this.behind > 0);
    if (this.behind > 0) setText(this.fresh, count(this.behind, "new line"));
  }

  private tellFound(): void {
    if (this.query === "") return setText(this.found, "");
    const places = hits(this.rows, this.query);
    const at = this.current === null ? -1 : places.indexOf(this.rows.indexOf(this.current));
    const all = integer(places.length);
    const some = at < 0 ? `${all} found` : `${integer(at + 1)} of ${all}`;
    setText(this.found, places.length === 0 ? "none" : some);
  }
}
