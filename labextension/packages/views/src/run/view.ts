/** The run view: puts the parts together and hands each message to the part that it is for. One for each output
 * that shows the run; each begins by asking for everything. */

import type { State, ToBrowser, ToKernel } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, show } from "../basics/dom";
import { ALIVE_MS, Link } from "../basics/link";
import { complain, tellSilence } from "../basics/notice";
import { followPage } from "../basics/page";
import type { Send, Theme } from "../basics/panel";
import { Tabs } from "../basics/tabs";
import { numbers } from "../curves/data";
import { CurvesSection } from "../curves/section";
import { decksPanel } from "../decks/decks";
import { faultsPanel } from "../faults/faults";
import { outputPanel } from "../output/output";
import { ranksTable } from "../ranks/ranks";
import { header } from "./header";
import { progressBar } from "./progress";
import { isLive } from "./run_words";

/** A run that goes on says something at least this often; then it is asked, and after the second time it is told. */
const SILENCE_MS = 20_000;
const PATIENCE_MS = 6_000;

export interface ViewOptions {
  /** The output tab is open at first: nothing beside the view shows what the ranks write. */
  opensOutput: boolean;
}

export class View {
  readonly el = h("div", { class: "qd-view", role: "region", "aria-label": "Run" });
  private readonly ended = new AbortController();
  private readonly header;
  private readonly progress = progressBar();
  private readonly curves;
  private readonly ranks = ranksTable();
  private readonly ranksSection;
  private readonly output;
  private readonly decks;
  private readonly faults = faultsPanel();
  private readonly tabs: Tabs;
  private readonly notice = h("div", { class: "qd-notice", hidden: true });
  private readonly trouble = h("div", { class: "qd-notice", hidden: true, role: "status" });
  private readonly parts = h("div", { class: "qd-parts" });
  private readonly link: Link<ToKernel>;
  private theme: Theme = "light";
  private state: State | null = null;
  private width = 0;
  private readonly began = performance.now();
  private heard = performance.now();
  private asked = false;

  constructor(post: Send, options: ViewOptions) {
    this.link = new Link<ToKernel>(post);
    const send: Send = (message) => this.link.send(message);
    this.header = header(send);
    this.curves = new CurvesSection(send);
    this.output = outputPanel(send);
    this.decks = decksPanel(send, () => this.theme);
    this.tabs = new Tabs(
      [
        { id: "output", word: "Output", el: this.output.el },
        { id: "decks", word: "Decks", el: this.decks.el },
        { id: "errors", word: "Errors", el: this.faults.el, bad: true },
      ],
      () => undefined,
    );
    this.ranksSection = h("section", { class: "qd-sec", "aria-label": "Ranks", hidden: true }, this.ranks.el);
    fill(this.parts, this.header.el, this.progress.el, this.curves.el, this.ranksSection, this.tabs.el);
    fill(this.el, this.notice, this.trouble, this.parts);
    show(this.parts, false);
    if (options.opensOutput) this.tabs.suggest("output");
  }

  /** Called once, when the element is in the page. */
  start(): void {
    const changes = { themed: (theme: Theme) => this.themed(theme), resized: (width: number) => this.resized(width) };
    followPage(this.el, changes, this.ended.signal);
    this.link.start({ beat: (now) => this.beat(now), back: (hiddenMs) => this.back(hiddenMs) }, this.ended.signal);
    this.link.send({ kind: "sync" });
  }

  dispose(): void {
    this.ended.abort();
    for (const part of [this.header, this.progress, this.curves, this.ranks, this.output, this.decks, this.faults]) {
      part.dispose();
    }
    this.el.remove();
  }

  /** Takes a message of the kernel. Kinds that this view does not know are passed over: the kernel may be newer. */
  take(message: ToBrowser, buffers: readonly DataView[]): void {
    this.heard = performance.now();
    this.asked = false;
    show(this.notice, false);
    setAttr(this.parts, "data-stale", false);
    switch (message.kind) {
      case "state":
        return this.show(message);
      case "curves":
        if (!this.curves.curves(message, numbers(buffers))) this.resync();
        else if (this.state) this.look(this.state);
        return;
      case "detail":
        return this.curves.detail(message, numbers(buffers));
      case "lines":
        return this.output.update(message);
      case "log":
        return this.output.log(message, buffers[0]);
      case "deckpage":
        return this.decks.page(message);
      case "runs":
        return this.curves.runs(message.runs);
      case "trouble":
        return complain(this.trouble, h("span", { class: "qd-grow" }, message.text));
      default:
        return unknown(message);
    }
  }

  private show(state: State): void {
    this.state = state;
    setAttr(this.el, "aria-label", `Run ${state.run.name}`);
    show(this.parts, true);
    this.header.update(state);
    this.progress.update(state);
    this.look(state);
    show(this.ranksSection, state.ranks.length > 0);
    this.ranks.update({ ranks: state.ranks, width: this.width });
    this.output.world(state.run.world_size);
    this.decks.update(state.decks);
    this.faults.update(state.faults);
    this.tabs.count("decks", state.decks.length);
    this.tabs.count("errors", state.faults.length);
    if (state.run.state === "failed" && state.faults.length > 0) this.tabs.suggest("errors");
  }

  /** Decks, and no curves though these had the time to come. */
  private onlyDecks(state: State): boolean {
    const patience = isLive(state.run) ? PATIENCE_MS : 1000;
    const waited = performance.now() - this.began > patience;
    return waited && !this.curves.any && state.decks.some((deck) => !deck.automatic);
  }

  private look(state: State): void {
    const lonely = state.decks.length === 0 && state.progress === null;
    this.curves.update(state.run.run_id, state.notes, lonely);
  }

  private resync(): void {
    this.link.send({ kind: "sync" });
    this.curves.again();
  }

  private themed(theme: Theme): void {
    const changed = theme !== this.theme;
    this.theme = theme;
    this.curves.recolour();
    if (changed) this.decks.restyle();
  }

  private resized(width: number): void {
    this.width = width;
    this.curves.resize(width);
    if (this.state) this.ranks.update({ ranks: this.state.ranks, width });
  }

  // ---- is there still somebody at the other end

  private beat(now: number): void {
    if (this.state && this.onlyDecks(this.state)) this.tabs.suggest("decks");
    if (document.hidden || !this.state || !isLive(this.state.run)) return;
    const silent = now - this.heard;
    if (!this.asked && silent > SILENCE_MS) {
      this.asked = true;
      this.resync();
    } else if (this.asked && silent > SILENCE_MS + PATIENCE_MS && this.notice.hidden) {
      tellSilence(this.notice, silent);
      setAttr(this.parts, "data-stale", true);
    }
  }

  /** A page out of sight for long has been sent nothing. */
  private back(hiddenMs: number): void {
    if (hiddenMs > 2 * ALIVE_MS) {
      this.heard = performance.now();
      this.resync();
    } else {
      this.link.send({ kind: "alive" });
    }
  }
}

function unknown(_message: never): void {}
