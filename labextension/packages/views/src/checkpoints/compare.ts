/** Two checkpoints side by side: what differs in their values, and how far each tensor has moved. Made by
 * browser.ts. */

import type { Change, Comparison, Pair, ToKernel } from "@quarterdeck/protocol/checkpoints";

import { fill, h, setAttr, show } from "../basics/dom";
import { integer, metric } from "../basics/words";
import type { Items } from "./items";
import { stepWords } from "./row";
import { shapeText } from "./tensor_tree";

/** Choices of a select: of more the newest of each group. */
const MOST_CHOICES = 400;
const FEW_CHANGES = 12;
const MOST_CHANGES = 1000;

export class ComparePane {
  readonly el = h("div", { class: "qd-ck-compare" });
  readonly bar: HTMLElement;
  private readonly sides: readonly [HTMLSelectElement, HTMLSelectElement];
  private readonly only = h("input", { type: "checkbox", checked: true });
  private readonly values = h("tbody");
  private readonly changes = h("tbody");
  private readonly progress = h("div", { class: "qd-bar", role: "progressbar", "aria-label": "Tensors compared" }, h("i"));
  private readonly note = h("div", { class: "qd-empty qd-ck-note", hidden: true });
  private shown: Comparison | null = null;
  private asked = "";
  private all = false;

  constructor(
    private readonly items: Items,
    private readonly send: (message: ToKernel) => void,
  ) {
    this.sides = [this.select("A"), this.select("B")];
    this.only.checked = true;
    this.only.addEventListener("change", () => this.draw());
    const label = (letter: string, select: HTMLElement): HTMLElement =>
      h("label", { class: "qd-ck-side" }, h("span", { class: "qd-rk qd-rk-all" }, letter), select);
    const only = h("label", { class: "qd-s qd-row qd-ck-only" }, this.only, "only differences");
    this.bar = h("div", { class: "qd-ck-sides" }, label("A", this.sides[0]), label("B", this.sides[1]), h("span", { class: "qd-grow" }), only);
    const left = table("Values", ["Value", "A", "B"], this.values);
    const right = h("div", null, this.progress, table("Tensors", ["Tensor", "Shape", "Change"], this.changes));
    fill(this.el, this.note, h("div", { class: "qd-ck-tables" }, left, right));
  }

  /** Offers what there is; `left` and `right` are chosen if they are given. */
  update(left?: string, right?: string): void {
    const chosen = [left ?? this.sides[0].value, right ?? this.sides[1].value];
    this.sides.forEach((select, at) => {
      fill(select, this.options());
      if (this.items.get(chosen[at] ?? "") !== undefined) this.add(select, chosen[at] ?? "");
    });
    this.ask();
  }

  take(found: Comparison): void {
    if (`${found.left} ${found.right}` !== this.asked) return;
    this.shown = found;
    this.draw();
  }

  failed(text: string): void {
    show(this.note, true);
    fill(this.note, text);
    show(this.progress, false);
  }

  /** Nothing is known any more of what was asked. */
  forget(): void {
    this.asked = "";
  }

  private select(letter: string): HTMLSelectElement {
    return h("select", { class: "qd-inp qd-ck-select", "aria-label": `Checkpoint ${letter}`, on: { change: () => this.ask() } });
  }

  private options(): HTMLElement[] {
    const each = Math.max(2, Math.floor(MOST_CHOICES / Math.max(1, this.items.all.length)));
    return this.items.all.map((group) => {
      const rows = group.rows.filter((row) => row.problem === "").slice(0, each);
      return h("optgroup", { label: group.name }, rows.map((row) => h("option", { value: row.id }, `${group.name}, ${stepWords(row).toLowerCase()}`)));
    });
  }

  private add(select: HTMLSelectElement, id: string): void {
    select.value = id;
    const entry = this.items.get(id);
    if (select.value === id || entry === undefined) return;
    select.prepend(h("option", { value: id }, `${entry.group.name}, ${stepWords(entry.row).toLowerCase()}`));
    select.value = id;
  }

  private ask(): void {
    const [left, right] = this.sides.map((select) => select.value);
    if (!left || !right || this.asked === `${left} ${right}`) return;
    this.asked = `${left} ${right}`;
    this.shown = null;
    this.all = false;
    show(this.note, false);
    this.draw();
    this.send({ kind: "compare", left, right });
  }

  private draw(): void {
    const { shown } = this;
    fill(this.values, shown ? this.valueRows(shown.pairs) : null);
    fill(this.changes, shown ? this.changeRows(shown) : message("Reading both", 3));
    const share = shown === null || shown.total === 0 ? 0 : shown.done / shown.total;
    show(this.progress, shown === null || shown.done < shown.total);
    setAttr(this.progress, "aria-valuenow", Math.round(100 * share));
    const inner = this.progress.firstElementChild;
    if (inner instanceof HTMLElement) inner.style.width = `${100 * share}%`;
  }

  private valueRows(pairs: readonly Pair[]): HTMLElement[] {
    const differs = ([, left, right]: Pair): boolean => left !== right;
    const some = this.only.checked ? pairs.filter(differs) : pairs;
    const rows = some.map((pair) => {
      const [name, left, right] = pair;
      return h("tr", null, h("th", { scope: "row", title: name }, name), value(left, false), value(right, differs(pair)));
    });
    const hidden = pairs.length - some.length;
    if (hidden > 0) rows.push(message(`${integer(hidden)} equal ${hidden === 1 ? "value" : "values"} hidden`, 3));
    if (pairs.length === 0) rows.push(message("Neither has values on record", 3));
    return rows;
  }

  private changeRows(shown: Comparison): HTMLElement[] {
    const size = ([, , change]: Change): number => (typeof change === "number" ? change : change === null ? Infinity : 1e300);
    const sorted = [...shown.changes].sort((a, b) => size(b) - size(a));
    const moved = this.only.checked ? sorted.filter((change) => change[2] !== 0) : sorted;
    const some = moved.slice(0, this.all ? MOST_CHANGES : FEW_CHANGES);
    const most = Math.max(1e-12, ...sorted.map(([, , change]) => (typeof change === "number" ? change : 0)));
    const rows = some.map((change) => changeRow(change, Math.min(1, most)));
    const words = [
      moved.length > some.length && `${integer(moved.length - some.length)} more`,
      sorted.length > moved.length && `${integer(sorted.length - moved.length)} equal`,
      (shown.only_left.length > 0 || shown.only_right.length > 0) && `${integer(shown.only_left.length)} only in A, ${integer(shown.only_right.length)} only in B`,
      shown.done < shown.total && `${integer(shown.total - shown.done)} to go`,
      shown.sampled && "large tensors were sampled",
    ].filter((word) => word !== false);
    if (words.length > 0) rows.push(this.rest(words.join(", "), moved.length > some.length && !this.all, [...shown.only_left, ...shown.only_right]));
    return rows;
  }

  private rest(text: string, more: boolean, titles: readonly string[]): HTMLElement {
    const click = (): void => {
      this.all = true;
      this.draw();
    };
    const button = more && h("button", { class: "qd-ck-link", type: "button", on: { click } }, "Show more");
    return h("tr", null, h("td", { colspan: 3, class: "qd-dim", title: titles.slice(0, 40).join("\n") || null }, text, " ", button));
  }
}

function changeRow([name, shape, change, note]: Change, most: number): HTMLElement {
  const bar = h("i");
  if (typeof change === "number") bar.style.width = `${Math.min(100, (100 * change) / most)}%`;
  const text = typeof change === "number" ? short(change) : (change ?? "");
  const cell = change === null ? h("span", { class: "qd-dim" }, note) : h("div", { class: "qd-row" }, h("div", { class: "qd-bar qd-ck-move" }, bar), h("span", null, text), note !== "" && h("span", { class: "qd-dim" }, note));
  return h("tr", null, h("th", { scope: "row", class: "qd-m", title: name }, name), h("td", { class: "qd-m qd-dim" }, shapeText(shape)), h("td", { title: note || null }, cell));
}

function short(change: number): string {
  return change === 0 ? "0" : change >= 0.995 ? metric(change) : change >= 0.001 ? String(Number(change.toPrecision(2))) : metric(change);
}

function value(text: string | null, isNew: boolean): HTMLElement {
  return h("td", { class: isNew ? "qd-m qd-b" : "qd-m", title: text }, text ?? h("span", { class: "qd-sr" }, "none"));
}

function message(text: string, columns: number): HTMLTableRowElement {
  return h("tr", null, h("td", { colspan: columns, class: "qd-dim" }, text));
}

function table(label: string, heads: readonly string[], body: HTMLElement): HTMLElement {
  const titles: Record<string, string> = { Change: "Norm of the difference over the norm of A" };
  const row = h("tr", null, heads.map((head) => h("th", { scope: "col", title: titles[head] }, head)));
  return h("table", { class: "qd-ck-table", "aria-label": label }, h("thead", null, row), body);
}
