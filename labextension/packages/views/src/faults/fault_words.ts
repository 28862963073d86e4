/** A fault's title in parts, its traceback in parts, and the report as plain text. Pure: no DOM. Called by faults.ts. */

import type { Fault } from "@quarterdeck/protocol/run";

/** A title's parts, in turn outside and inside code: the name of an exception is code. */
export function titleParts({ title, code }: Fault): [before: string, code: string, after: string] {
  const at = code === "" ? -1 : title.indexOf(code);
  return at < 0 ? [title, "", ""] : [title.slice(0, at), code, title.slice(at + code.length)];
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
  const one = (fault: Fault, at: number): string =>
    [
      `${at + 1}. ${fault.title}`,
      fault.detail,
      fault.evidence.map(({ label, text }) => `${label}: ${text}`).join("\n"),
      fault.traceback.replace(/\n+$/, ""),
    ]
      .filter((part) => part !== "")
      .join("\n\n");
  return `${faults.map(one).join("\n\n\n")}\n`;
}

export function rootOf(faults: readonly Fault[]): Fault | undefined {
  return faults.find((fault) => fault.root) ?? faults[0];
}
