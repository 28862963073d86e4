/** A fault's headline, its evidence in two columns, and the report as plain text. Pure: no DOM. Called by faults.ts. */

import type { Fault } from "./protocol";

export interface Evidence {
  readonly label: string;
  readonly text: string;
}

/** "Earlier: ..." and "Also: ..." stand before what is not the root cause. */
export function headline(fault: Fault, root: Fault | undefined): string {
  if (root === undefined || fault === root) return fault.title;
  const word = fault.attempt < root.attempt ? "Earlier" : "Also";
  return `${word}: ${fault.title.replace(/^(Ranks?|The) /, (found) => found.toLowerCase())}`;
}

/** A headline's parts, in turn outside and inside code: the name of an exception is code. */
export function headlineParts(text: string): [before: string, code: string, after: string] {
  const found = /^((?:Earlier: |Also: )?)([A-Za-z_][\w.]*)( on ranks? \d.*)$/s.exec(text);
  const [, before = "", code = "", after = ""] = found ?? [];
  return found === null ? [text, "", ""] : [before, code, after];
}

/** An item "Label: text" in two; an item without a label stands below the label of the one before. */
export function evidence(items: readonly string[]): Evidence[] {
  return items.map((item, at) => {
    const [, label = "", text = ""] = /^([A-Z][^:\n]{0,39}): +(.+)$/s.exec(item) ?? [];
    return label === "" ? { label: at === 0 ? "Evidence" : "", text: item } : { label, text };
  });
}

/** Text of a traceback, or frames of libraries in a row: those are folded under `summary`. */
export interface TracePart {
  readonly text: string;
  readonly summary: string;
}

const FRAME = /^(?:File|Cell) /;
const LIBRARY = /^File \S*\/(?:site-packages|dist-packages|lib\/python3[.\d]*)\/(\S+?),? /;

/** Frames begin after empty lines, as IPython writes them; a text in another form is one part. */
export function traceParts(text: string): TracePart[] {
  const parts: { blocks: string[]; place: string }[] = [];
  for (const block of text.split(/\n{2,}/)) {
    const place = LIBRARY.exec(block)?.[1] ?? "";
    const last = parts.at(-1);
    const same = last && (FRAME.test(block) ? (last.place === "") === (place === "") : last.place === "");
    if (same) [last.blocks, last.place] = [[...last.blocks, block], place];
    else parts.push({ blocks: [block], place });
  }
  return parts.map(({ blocks, place }) => {
    const frames = blocks.length === 1 ? "1 frame in a library" : `${blocks.length} frames in libraries, the last`;
    return { text: blocks.join("\n\n"), summary: place && `${frames}: ${place}` };
  });
}

export function report(faults: readonly Fault[]): string {
  const root = rootOf(faults);
  const one = (fault: Fault, at: number): string =>
    [
      `${at + 1}. ${headline(fault, root)}`,
      fault.detail,
      fault.evidence.join("\n"),
      fault.traceback.replace(/\n+$/, ""),
    ]
      .filter((part) => part !== "")
      .join("\n\n");
  return `${faults.map(one).join("\n\n\n")}\n`;
}

export function rootOf(faults: readonly Fault[]): Fault | undefined {
  return faults.find((fault) => fault.root) ?? faults[0];
}
