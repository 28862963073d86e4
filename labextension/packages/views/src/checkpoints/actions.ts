/** What can be done with a checkpoint: load, resume, export, pin, delete. Made by detail.ts. */

import type { ExportForm, Row, ToKernel } from "@quarterdeck/protocol/checkpoints";

import { iconButton } from "../basics/buttons";
import { fill, h, setAttr, setText, show } from "../basics/dom";
import { icon } from "../basics/icons";
import { copy } from "../basics/save";
import { stepWords } from "./row";

export class Actions {
  /** Icons beside the title. */
  readonly icons: HTMLElement;
  /** Buttons, and what they open. */
  readonly el: HTMLElement;
  private readonly pin = iconButton("pin", "Pin");
  private readonly save = iconButton("download", "Export to one file");
  private readonly trash = iconButton("trash", "Delete, with undo");
  private readonly name = h("input", { value: "ckpt", size: 8, "aria-label": "Name of the variable", spellcheck: "false", autocomplete: "off" });
  private readonly load = h("button", { class: "qd-btn qd-btn-small qd-ck-main", type: "button" }, icon("load"), "Load into");
  private readonly resume = h("button", { class: "qd-btn qd-btn-small", type: "button", "aria-expanded": "false" }, icon("restart"), "Resume from here");
  private readonly opened = h("div", { class: "qd-ck-opened" });
  private row: Row | null = null;
  private code = "";

  constructor(private readonly send: (message: ToKernel) => void) {
    this.pin.addEventListener("click", () => this.pinned());
    this.save.addEventListener("click", () => this.toggle("export", () => this.exports()));
    this.trash.addEventListener("click", () => this.deleted());
    this.load.addEventListener("click", () => this.loaded());
    this.name.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.loaded();
    });
    this.resume.addEventListener("click", () => this.toggle("resume", () => this.resumed()));
    this.icons = h("div", { class: "qd-row qd-ck-icons" }, this.pin, this.save, this.trash);
    const into = h("div", { class: "qd-ck-into", role: "group", "aria-label": "Load" }, this.load, this.name);
    this.el = h("div", null, h("div", { class: "qd-row qd-ck-actions" }, into, this.resume), this.opened);
  }

  update(row: Row): void {
    if (row.id !== this.row?.id) {
      this.close();
      this.code = "";
    }
    this.row = row;
    const able = row.problem === "" && row.needs.length === 0;
    for (const button of [this.load, this.save]) setAttr(button, "disabled", !able);
    setAttr(this.resume, "disabled", !able || this.code === "");
    setAttr(this.pin, "disabled", row.problem !== "");
    setAttr(this.pin, "aria-pressed", String(row.pinned));
    for (const name of ["aria-label", "title"]) setAttr(this.pin, name, row.pinned ? "Unpin" : "Pin");
    show(this.el, row.problem === "");
  }

  /** The code that goes on from here, as the kernel tells it, after `update`; until then there is none to show. */
  resumeCode(code: string): void {
    if (this.code !== code && this.opened.dataset["what"] === "resume") this.close();
    this.code = code;
    if (this.row !== null) this.update(this.row);
  }

  /** Asks before a pinned one goes; others go at once, and can come back. */
  deleted(): void {
    const { row } = this;
    if (row === null) return;
    if (!row.pinned) this.send({ kind: "delete", id: row.id, confirmed: false });
    else this.toggle("delete", () => this.confirmation(row));
  }

  pinned(): void {
    if (this.row !== null && this.row.problem === "") this.send({ kind: "pin", id: this.row.id, pinned: !this.row.pinned });
  }

  private loaded(): void {
    if (this.row !== null && !this.load.disabled) this.send({ kind: "load", id: this.row.id, name: this.name.value.trim() });
  }

  // ---- what opens below the buttons

  private toggle(what: string, make: () => HTMLElement): void {
    if (this.opened.dataset["what"] === what) return this.close();
    this.close();
    this.opened.dataset["what"] = what;
    fill(this.opened, make());
    setAttr(what === "resume" ? this.resume : this.save, "aria-expanded", what === "delete" ? "false" : "true");
    this.opened.querySelector("button")?.focus();
  }

  private close(): void {
    delete this.opened.dataset["what"];
    fill(this.opened);
    for (const button of [this.resume, this.save]) setAttr(button, "aria-expanded", "false");
  }

  private exports(): HTMLElement {
    const one = (form: ExportForm, word: string): HTMLElement => {
      const click = (): void => {
        if (this.row !== null) this.send({ kind: "export", id: this.row.id, form });
        this.close();
      };
      return h("button", { class: "qd-btn qd-btn-small", type: "button", on: { click } }, word);
    };
    return h("div", { class: "qd-row qd-ck-actions" }, one("safetensors", "Weights, .safetensors"), one("pt", "Everything, .pt"));
  }

  private resumed(): HTMLElement {
    const word = h("span", null, "Copied");
    const again = (): void => {
      void copy(this.code).then(() => setText(word, "Copied"));
    };
    again();
    const button = h("button", { class: "qd-btn qd-btn-small", type: "button", on: { click: again } }, icon("copy"), word);
    const note = h("span", { class: "qd-grow qd-dim qd-s" }, "Paste it into a cell and run that.");
    return h("div", { class: "qd-ck-code" }, h("div", { class: "qd-row qd-ck-codehead" }, note, button), h("pre", { class: "qd-m", tabindex: 0, "aria-label": "Code" }, this.code));
  }

  private confirmation(row: Row): HTMLElement {
    const yes = (): void => {
      this.close();
      this.send({ kind: "delete", id: row.id, confirmed: true });
    };
    const words = h("span", { class: "qd-grow" }, `${stepWords(row)} is pinned. Delete it all the same?`);
    const keep = h("button", { class: "qd-btn qd-btn-small", type: "button", on: { click: () => this.close() } }, "Keep");
    const go = h("button", { class: "qd-btn qd-btn-small qd-btn-danger", type: "button", on: { click: yes } }, "Delete");
    return h("div", { class: "qd-note qd-note-warn qd-ck-confirm", role: "alertdialog", "aria-label": "Delete a pinned checkpoint" }, icon("warning"), words, keep, go);
  }
}
