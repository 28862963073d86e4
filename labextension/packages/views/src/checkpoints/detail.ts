/** One checkpoint: what it is, what can be done with it, what is in it. Made by browser.ts. */

import type { Detail, Fact, Statistics, ToKernel } from "@quarterdeck/protocol/checkpoints";

import { fill, h, show } from "../basics/dom";
import { icon } from "../basics/icons";
import { clock, age, metric } from "../basics/words";
import { Actions } from "./actions";
import { metricOf } from "./filter";
import { Histogram } from "./histogram";
import type { Entry } from "./items";
import { badges, stepWords } from "./row";
import { Tensors } from "./tensors";

const PATIENCE_MS = 90;
const MOST_FACTS = 16;
const KEPT = 50;

export class DetailPane {
  readonly el = h("div", { class: "qd-ck-detail", role: "region", "aria-label": "Checkpoint" });
  readonly actions: Actions;
  private readonly title = h("h3", { class: "qd-ck-title qd-grow" });
  private readonly words = h("div", { class: "qd-s qd-dim qd-ck-words" });
  private readonly problem = h("div", { class: "qd-note qd-note-err", hidden: true });
  private readonly metrics = h("div");
  private readonly values = h("div");
  private readonly about = h("div");
  private readonly tensors: Tensors;
  private readonly histogram = new Histogram();
  private readonly kept = new Map<string, Detail>();
  private entry: Entry | null = null;
  private tensor: string | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private all = false;

  constructor(private readonly send: (message: ToKernel) => void) {
    this.actions = new Actions(send);
    this.tensors = new Tensors((tensor) => this.look(tensor));
    const head = h("div", { class: "qd-row" }, this.title, this.actions.icons);
    fill(this.el, head, this.words, this.problem, this.actions.el, this.metrics, this.values, this.tensors.el, this.histogram.el, this.about);
  }

  dispose(): void {
    clearTimeout(this.timer);
  }

  /** Shows this one: at once what the list knows, the rest when the kernel has told it. */
  update(entry: Entry | undefined): void {
    show(this.el, entry !== undefined);
    if (entry === undefined) {
      this.entry = null;
      return;
    }
    const other = keyOf(entry) !== (this.entry && keyOf(this.entry));
    this.entry = entry;
    this.head(entry);
    this.actions.update(entry.row);
    if (!other) return;
    this.histogram.clear();
    clearTimeout(this.timer);
    const known = this.kept.get(keyOf(entry));
    if (known !== undefined) this.fill(known);
    else this.timer = setTimeout(() => this.send({ kind: "wantdetail", id: entry.row.id }), PATIENCE_MS);
  }

  detail(detail: Detail): void {
    if (this.entry?.row.id !== detail.id) return;
    if (this.kept.size >= KEPT) this.kept.clear();
    this.kept.set(keyOf(this.entry), detail);
    this.fill(detail);
  }

  /** The kernel is another one, or its ids may be: nothing of before counts. */
  forget(): void {
    this.kept.clear();
    this.entry = null;
  }

  statistics(found: Statistics): void {
    if (this.entry?.row.id === found.id && this.tensor === found.tensor) this.histogram.update(found);
  }

  failed(id: string, text: string): boolean {
    const mine = this.entry?.row.id === id && this.tensor !== null;
    if (mine) this.histogram.fail(this.tensor ?? "", text);
    return mine;
  }

  focus(): void {
    this.el.querySelector<HTMLElement>("button:not(:disabled)")?.focus();
  }

  private look(tensor: string): void {
    if (this.entry === null) return;
    this.tensor = tensor;
    this.histogram.wait(tensor);
    this.send({ kind: "wantstatistics", id: this.entry.row.id, tensor });
  }

  private head(entry: Entry): void {
    const { row, group } = entry;
    fill(this.title, stepWords(row), " ", badges(entry, true));
    const day = age(row.created_ms, Date.now());
    const when = /min|h|just/.test(day) ? clock(row.created_ms) : `${day} ${clock(row.created_ms)}`;
    const facts = [row.created_ms > 0 && when, row.epoch !== null && `epoch ${metricLike(row.epoch)}`, group.name];
    const safe = row.problem === "" && row.needs.length === 0;
    fill(this.words, facts.filter((fact) => fact !== false).join(", "), ". ", safe && [icon("shield", true), " Loads without running any code."]);
    const needs = row.needs.length > 0 && `Needs trust: loading it would run ${row.needs.join(", ")}. It is refused here; if you know who made it: qd.load_checkpoint(path, trust=True).`;
    show(this.problem, row.problem !== "" || needs !== false);
    fill(this.problem, icon("warning"), h("span", { class: "qd-ck-wrap" }, row.problem !== "" ? `It cannot be loaded and is skipped: ${row.problem}.` : needs));
    const metrics = Object.keys(row.metrics).map((name) => ({ name, value: metric(metricOf(row, name)) }));
    fill(this.metrics, factGrid(metrics.length > 2 ? "Metrics" : "", metrics.length > 2 ? metrics : []));
  }

  private fill(detail: Detail): void {
    this.actions.resumeCode(detail.resume);
    const some = this.all ? detail.hyperparameters : detail.hyperparameters.slice(0, MOST_FACTS);
    const rest = detail.hyperparameters.length - some.length;
    const click = (): void => {
      this.all = true;
      this.fill(detail);
    };
    const more = rest > 0 && h("button", { class: "qd-ck-link", type: "button", on: { click } }, `Show ${rest} more`);
    fill(this.values, factGrid("Hyperparameters", some), more);
    const has = detail.tensors.some((tensor) => tensor[0] === this.tensor);
    if (!has) this.tensor = null;
    this.tensors.update(detail, this.tensor);
    if (this.tensor !== null) this.look(this.tensor);
    const list = h("dl", { class: "qd-ck-about" }, detail.facts.map(({ name, value }) => [h("dt", null, name), h("dd", { class: "qd-m" }, value)]));
    fill(this.about, h("details", { class: "qd-ck-part" }, h("summary", { class: "qd-s qd-dim" }, "About"), list));
  }
}

function keyOf({ row }: Entry): string {
  return `${row.id} ${row.created_ms} ${row.problem}`;
}

function metricLike(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toFixed(3)));
}

function factGrid(title: string, facts: readonly Fact[]): HTMLElement | false {
  if (facts.length === 0) return false;
  const one = ({ name, value }: Fact): HTMLElement =>
    h("div", null, h("dt", { class: "qd-el", title: name }, name), h("dd", { class: "qd-m qd-el", title: value }, value));
  return h("section", { class: "qd-ck-part", "aria-label": title }, h("div", { class: "qd-ck-ttl" }, title), h("dl", { class: "qd-ck-grid" }, facts.map(one)));
}
