/** The tensors of a checkpoint as a tree with a filter; one of them can be looked into. Made by detail.ts. */

import type { Detail } from "@quarterdeck/protocol/checkpoints";

import { fill, h, setAttr, show } from "../basics/dom";
import { icon } from "../basics/icons";
import { count, size, steps } from "../basics/words";
import { shapeText, shortType, treeOf } from "./tensor_tree";
import type { Folder, Leaf, TreeNode } from "./tensor_tree";

/** More lines than these are not drawn at once: the filter finds the others. */
const MOST_LINES = 300;
/** Few tensors are shown without a click. */
const OPEN_UP_TO = 16;
const SEARCH_FROM = 8;

export class Tensors {
  readonly el: HTMLElement;
  private readonly tree: HTMLElement;
  private readonly search = h("input", { type: "search", placeholder: "Filter tensors", "aria-label": "Filter tensors" });
  private readonly searchBox = h("label", { class: "qd-inp qd-ck-search" }, icon("search", true), this.search);
  private readonly counts = h("span", { class: "qd-dim qd-ck-light" });
  private readonly open = new Set<string>();
  private detail: Detail | null = null;
  private chosen: string | null = null;

  constructor(private readonly look: (tensor: string) => void) {
    const on = { keydown: (event: KeyboardEvent) => this.key(event) };
    this.tree = h("div", { class: "qd-ck-tree", role: "tree", "aria-label": "Tensors", on });
    this.search.addEventListener("input", () => this.draw());
    const title = h("span", { class: "qd-ck-ttl qd-grow" }, "Tensors ", this.counts);
    this.el = h("section", { class: "qd-ck-part", "aria-label": "Tensors" }, h("div", { class: "qd-row" }, title, this.searchBox), this.tree);
  }

  /** What was open stays open from one checkpoint to the next. */
  update(detail: Detail, chosen: string | null): void {
    const few = detail.tensors.filter((tensor) => tensor[4] === "model").length <= OPEN_UP_TO;
    if (few && this.open.size === 0) for (const node of treeOf(detail.tensors)) this.openAll(node);
    this.detail = detail;
    this.chosen = chosen;
    show(this.el, detail.tensors.length > 0);
    show(this.searchBox, detail.tensors.length >= SEARCH_FROM);
    const model = detail.tensors.filter((tensor) => tensor[4] === "model");
    fill(this.counts, `${count(model.length, "tensor").replace(/ tensors?$/, "")}, ${steps(detail.parameters)} parameters`);
    this.draw();
  }

  private openAll(node: TreeNode): void {
    if (node.kind !== "folder" || node.path.startsWith("\0")) return;
    this.open.add(node.path);
    node.nodes.forEach((one) => this.openAll(one));
  }

  private draw(): void {
    if (this.detail === null) return;
    const held = document.activeElement instanceof HTMLElement && this.tree.contains(document.activeElement) ? document.activeElement.dataset["node"] : undefined;
    const wanted = this.search.value.trim().toLowerCase();
    const lines: HTMLElement[] = [];
    const put = (node: TreeNode, depth: number): void => {
      const el = node.kind === "leaf" ? this.leafLine(node, depth) : this.folderLine(node, depth);
      if (lines.length < MOST_LINES) lines.push(el);
      if (node.kind === "folder" && this.open.has(node.path)) node.nodes.forEach((one) => put(one, depth + 1));
    };
    const flat = this.detail.tensors.filter((tensor) => tensor[0].toLowerCase().includes(wanted));
    if (wanted !== "") for (const tensor of flat.slice(0, MOST_LINES)) put({ kind: "leaf", name: tensor[0], tensor }, 0);
    else for (const node of treeOf(this.detail.tensors)) put(node, 0);
    const cut = lines.length >= MOST_LINES && h("div", { class: "qd-dim qd-xs" }, "More are not shown: filter by name.");
    const none = lines.length === 0 && h("div", { class: "qd-dim qd-s" }, "No tensor matches. Clear the filter.");
    fill(this.tree, lines, cut, none);
    const all = [...this.tree.querySelectorAll<HTMLElement>("[role=treeitem]")];
    const first = all.find((el) => el.dataset["node"] === (held ?? this.chosen)) ?? all[0];
    for (const el of all) setAttr(el, "tabindex", el === first ? 0 : -1);
    if (held !== undefined) first?.focus();
  }

  private folderLine(node: Folder, depth: number): HTMLElement {
    const open = this.open.has(node.path);
    const click = (): void => this.toggle(node.path, !open);
    const props = { class: "qd-ck-tensor", role: "treeitem", "data-node": node.path, "aria-level": depth + 1, "aria-expanded": String(open) };
    const sizes = h("span", { class: "qd-ck-bytes" }, size(node.size_bytes));
    return indented(
      h("div", { ...props, on: { click } }, icon(open ? "chevronDown" : "chevronRight", true), h("span", { class: "qd-m qd-el" }, node.name), h("span", { class: "qd-dim qd-xs qd-ck-shape" }, count(node.tensors, "tensor")), sizes),
      depth,
    );
  }

  private leafLine({ name, tensor }: Leaf, depth: number): HTMLElement {
    const [full, shape, dtype, bytes, part, alias] = tensor;
    const able = part === "model";
    const click = (): void => this.choose(full);
    const props = { class: "qd-ck-tensor", role: "treeitem", "data-node": full, "aria-level": depth + 1, title: full, "aria-selected": String(able && full === this.chosen) };
    const kind = alias === "" ? `${shapeText(shape)} ${shortType(dtype)}` : `is ${alias}`;
    return indented(
      h("div", { ...props, on: able ? { click } : undefined }, h("span", { class: "qd-ck-nochevron" }), h("span", { class: "qd-m qd-el" }, name), h("span", { class: "qd-m qd-dim qd-el qd-ck-shape" }, kind), h("span", { class: "qd-ck-bytes" }, alias === "" ? size(bytes) : "")),
      depth,
    );
  }

  private choose(tensor: string): void {
    this.chosen = tensor;
    this.look(tensor);
    this.draw();
  }

  private toggle(path: string, open: boolean): void {
    if (open) this.open.add(path);
    else this.open.delete(path);
    this.draw();
  }

  private key(event: KeyboardEvent): void {
    const el = event.target instanceof HTMLElement ? event.target.closest<HTMLElement>("[role=treeitem]") : null;
    const key = { j: "ArrowDown", k: "ArrowUp" }[event.key] ?? event.key;
    if (el === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...this.tree.querySelectorAll<HTMLElement>("[role=treeitem]")];
    const to = { ArrowDown: all.indexOf(el) + 1, ArrowUp: all.indexOf(el) - 1, Home: 0, End: all.length - 1 }[key];
    if (to !== undefined) this.move(all, all[to]);
    else if (key === "Enter" || key === " ") el.click();
    else if (key === "ArrowRight" && el.getAttribute("aria-expanded") === "false") el.click();
    else if (key === "ArrowLeft" && el.getAttribute("aria-expanded") === "true") el.click();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private move(all: readonly HTMLElement[], to: HTMLElement | undefined): void {
    if (to === undefined) return;
    for (const el of all) setAttr(el, "tabindex", el === to ? 0 : -1);
    to.focus();
  }
}

function indented(el: HTMLElement, depth: number): HTMLElement {
  el.style.paddingLeft = `${6 + depth * 14}px`;
  return el;
}
