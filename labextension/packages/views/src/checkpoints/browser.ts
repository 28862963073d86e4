/** The checkpoint browser: puts the parts together and hands each message to the part that it is for. One for each
 * output that shows it; each begins by asking for everything. */

import type { Deleted, Shelf, ToBrowser, ToKernel, Trouble } from "@quarterdeck/protocol/checkpoints";

import { fill, h, setAttr, setText, show } from "../basics/dom";
import { icon } from "../basics/icons";
import { Link } from "../basics/link";
import { complain, tellSilence } from "../basics/notice";
import { followPage } from "../basics/page";
import { count, size } from "../basics/words";
import { ComparePane } from "./compare";
import { DetailPane } from "./detail";
import { Items } from "./items";
import { List } from "./list";

const AGES_MS = 30_000;
const SILENCE_MS = 6_000;
const SAID_MS = 8_000;
const MOST_UNDO = 3;
const EMPTY = "No checkpoints yet. qd.save_checkpoint(model, optimizer, step=step) keeps one here.";
const KEYS = [["↑", "↓", "move"], ["Space", "mark to compare"], ["P", "pin"], ["/", "filter"]] as const;

export class Browser {
  readonly el = h("div", { class: "qd-view qd-shelf", role: "region", "aria-label": "Checkpoints" });
  private readonly ended = new AbortController();
  private readonly items = new Items();
  private readonly list: List;
  private readonly detail: DetailPane;
  private readonly compare: ComparePane;
  private readonly title = h("h2", { class: "qd-title" }, "Checkpoints");
  private readonly sum = h("span", { class: "qd-s qd-dim qd-grow qd-el" });
  private readonly filter = h("input", { type: "search", placeholder: "accuracy > 0.9, best, pinned", "aria-label": "Filter checkpoints" });
  private readonly filterBox = h("label", { class: "qd-inp qd-ck-filter" }, icon("filter", true), this.filter);
  private readonly modes: Record<"browse" | "compare", HTMLButtonElement>;
  private readonly undo = h("div", { class: "qd-ck-undo", hidden: true });
  private readonly said = h("div", { class: "qd-ck-said qd-s", role: "status", hidden: true });
  private readonly trouble = h("div", { class: "qd-notice qd-ck-trouble", role: "alert", hidden: true });
  private readonly browse = h("div", { class: "qd-ck-panes" });
  private readonly link: Link<ToKernel>;
  private readonly ages: ReturnType<typeof setInterval>;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private mode: "browse" | "compare" = "browse";
  private marks: string[] = [];
  private ahead = 0;
  private ready = false;

  constructor(post: (message: ToKernel) => void) {
    this.link = new Link<ToKernel>(post);
    const send = (message: ToKernel): void => this.send(message);
    this.detail = new DetailPane(send);
    this.compare = new ComparePane(this.items, send);
    this.list = new List(this.items, {
      chosen: (id) => this.detail.update(this.items.get(id)),
      entered: () => this.detail.focus(),
      marked: (id) => this.mark(id),
      pinned: () => this.detail.actions.pinned(),
      deleted: () => this.detail.actions.deleted(),
      searched: () => this.filter.focus(),
      sorted: () => this.redraw(),
    });
    this.modes = { browse: this.modeButton("browse", "Browse"), compare: this.modeButton("compare", "Compare") };
    this.filter.addEventListener("input", () => this.filtered());
    this.filter.addEventListener("keydown", (event) => this.leaveFilter(event));
    this.layOut();
    this.ages = setInterval(() => this.redraw(), AGES_MS);
  }

  private layOut(): void {
    const seg = h("div", { class: "qd-seg", role: "group", "aria-label": "Mode" }, this.modes.browse, this.modes.compare);
    const head = h("header", { class: "qd-ck-head" }, this.title, this.sum, this.compare.bar, this.filterBox, seg);
    const keys = h("div", { class: "qd-ck-keys qd-xs qd-dim", "aria-hidden": "true" }, KEYS.map((words) => h("span", null, words.slice(0, -1).map((key) => h("kbd", null, key)), ` ${words[words.length - 1]}`)));
    const left = h("div", { class: "qd-ck-left" }, this.list.el, this.undo, keys);
    fill(this.browse, left, this.detail.el);
    fill(this.el, this.trouble, head, this.said, this.browse, this.compare.el);
    setAttr(this.el, "data-lm-suppress-shortcuts", "true");
    show(this.detail.el, false);
    this.turn("browse");
  }

  /** Called once, when the element is in the page. */
  start(): void {
    followPage(this.el, {}, this.ended.signal);
    this.link.start({ beat: (now) => this.beat(now), back: () => this.send({ kind: "sync" }) }, this.ended.signal);
    this.send({ kind: "sync" });
  }

  dispose(): void {
    this.ended.abort();
    clearInterval(this.ages);
    clearTimeout(this.timer);
    this.list.dispose();
    this.detail.dispose();
    this.el.remove();
  }

  /** Takes a message of the kernel. Kinds that this view does not know are passed over: the kernel may be newer. */
  take(message: ToBrowser): void {
    this.waiting = null;
    if (this.browse.hasAttribute("data-stale")) show(this.trouble, false);
    setAttr(this.browse, "data-stale", false);
    switch (message.kind) {
      case "shelf":
        return this.shelf(message);
      case "detail":
        return this.detail.detail(message);
      case "statistics":
        return this.detail.statistics(message);
      case "comparison":
        return this.compare.take(message);
      case "done":
        return this.say(message.text);
      case "trouble":
        return this.complain(message);
      default:
        return unknown(message);
    }
  }

  private shelf(shelf: Shelf): void {
    this.ready = true;
    this.ahead = Date.now() - shelf.now_ms;
    this.items.apply(shelf);
    this.marks = this.marks.filter((id) => this.items.get(id) !== undefined);
    setAttr(this.title, "title", shelf.where);
    this.undoes(shelf.deleted);
    this.redraw();
    if (this.mode === "compare") this.compare.update();
  }

  private redraw(): void {
    if (!this.ready) return;
    const { count: n, size_bytes } = this.items;
    const runs = this.items.all.length;
    setText(this.sum, n === 0 ? "" : `${count(n, "checkpoint").replace(/ checkpoints?/, "")} in ${count(runs, "run")}, ${size(size_bytes)}`);
    const letters = new Map(this.marks.map((id, at) => [id, "AB"[at] ?? ""]));
    this.list.update(letters, Date.now() - this.ahead, this.emptiness());
    this.detail.update(this.items.get(this.list.chosen) ?? this.items.get(this.last));
    this.last = this.items.get(this.list.chosen) ? this.list.chosen : this.last;
    show(this.detail.el, n > 0 && this.items.get(this.last) !== undefined);
    setAttr(this.modes.compare, "disabled", n < 2);
  }

  /** The checkpoint that the right side shows while a group is the current line. */
  private last: string | null = null;

  private emptiness(): Node {
    if (this.items.count === 0) return document.createTextNode(EMPTY);
    const click = (): void => {
      this.filter.value = "";
      this.filtered();
      this.list.focus();
    };
    const clear = h("button", { class: "qd-ck-link", type: "button", on: { click } }, "Clear the filter");
    return h("span", null, "No checkpoint matches. ", clear);
  }

  private filtered(): void {
    this.items.filter = this.filter.value;
    this.redraw();
  }

  private leaveFilter(event: KeyboardEvent): void {
    if (event.key === "Escape") {
      this.filter.value = "";
      this.filtered();
    }
    if (event.key === "Escape" || event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      this.list.focus();
    }
  }

  // ---- compare

  private modeButton(mode: "browse" | "compare", word: string): HTMLButtonElement {
    return h("button", { type: "button", on: { click: () => this.turn(mode) } }, word);
  }

  private turn(mode: "browse" | "compare"): void {
    this.mode = mode;
    for (const [name, button] of Object.entries(this.modes)) setAttr(button, "aria-pressed", String(name === mode));
    const comparing = mode === "compare";
    show(this.browse, !comparing);
    show(this.filterBox, !comparing);
    show(this.sum, !comparing);
    show(this.compare.el, comparing);
    show(this.compare.bar, comparing);
    setText(this.title, comparing ? "Compare" : "Checkpoints");
    if (comparing) this.compare.update(...this.pair());
    else this.redraw();
  }

  /** What is marked; else the chosen one, and the best of another group or the one saved before it. */
  private pair(): [string | undefined, string | undefined] {
    const able = this.items.all.flatMap((group) => group.rows).filter((row) => row.problem === "");
    const right = this.marks[1] ?? able.find((row) => row.id === this.last && row.id !== this.marks[0])?.id ?? able.find((row) => row.id !== this.marks[0])?.id;
    const group = this.items.get(right ?? null)?.group;
    const before = group?.rows.filter((row) => row.problem === "" && row.id !== right) ?? [];
    const at = group?.rows.find((row) => row.id === right)?.step ?? 0;
    const nearest = before.find((row) => row.step < at) ?? before[before.length - 1] ?? able.find((row) => row.id !== right);
    return [this.marks[0] ?? nearest?.id, right];
  }

  private mark(id: string): void {
    if (this.items.get(id)?.row.problem !== "") return;
    this.marks = this.marks.includes(id) ? this.marks.filter((one) => one !== id) : [...this.marks.slice(-1), id];
    this.redraw();
    this.say(this.marks.length === 2 ? "Two are marked: Compare shows them side by side." : this.marks.length === 1 ? "Marked as A. Space marks another one." : "");
  }

  // ---- what has happened

  private undoes(deleted: readonly Deleted[]): void {
    show(this.undo, deleted.length > 0);
    const rest = deleted.length - MOST_UNDO;
    const lines = deleted.slice(0, MOST_UNDO).map(({ id, words }) => {
      const click = (): void => this.send({ kind: "undo", id });
      return h("div", { class: "qd-row" }, icon("trash", true), h("span", null, `Deleted ${words}.`), h("button", { class: "qd-ck-link", type: "button", "aria-label": `Undo: bring ${words} back`, on: { click } }, "Undo"));
    });
    fill(this.undo, lines, rest > 0 && h("div", { class: "qd-dim" }, `and ${rest} more`));
  }

  private say(text: string): void {
    show(this.trouble, false);
    clearTimeout(this.timer);
    fill(this.said, text !== "" && [icon("check", true), " ", coded(text)]);
    show(this.said, text !== "");
    this.timer = setTimeout(() => show(this.said, false), SAID_MS);
  }

  private complain(message: Trouble): void {
    if (message.about === "wantstatistics" && this.detail.failed(message.id, message.text)) return;
    if (message.about === "compare" && this.mode === "compare") return this.compare.failed(message.text);
    complain(this.trouble, h("span", { class: "qd-grow qd-ck-wrap" }, coded(message.text)));
    show(this.said, false);
  }

  // ---- is there still somebody at the other end

  /** When the kernel was asked for what it has not answered yet. */
  private waiting: number | null = null;

  private send(message: ToKernel): void {
    if (message.kind !== "load" && message.kind !== "export" && message.kind !== "wantstatistics") this.waiting ??= performance.now();
    this.link.send(message);
  }

  private beat(now: number): void {
    if (this.waiting === null || now - this.waiting < SILENCE_MS || this.el.querySelector("[data-stale]")) return;
    setAttr(this.browse, "data-stale", true);
    tellSilence(this.trouble, now - this.waiting);
  }
}

/** Names between backquotes are set as code. */
function coded(text: string): (string | HTMLElement)[] {
  return text.split("`").map((part, at) => (at % 2 === 1 ? h("code", { class: "qd-m" }, part) : part));
}

function unknown(_message: never): void {}
