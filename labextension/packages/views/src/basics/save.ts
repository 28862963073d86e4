/** Files for the reader to keep, and pages in a tab of their own, out of what this page holds. Called by panels. */

import { h } from "./dom";

/** Long enough for the slowest browser to have taken it. */
const KEPT_MS = 60_000;

function urlOf(content: BlobPart, type: string): string {
  const url = URL.createObjectURL(new Blob([content], { type }));
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS);
  return url;
}

/** Offers a download. */
export function saveAs(name: string, content: BlobPart, type: string): void {
  h("a", { href: urlOf(content, type), download: name }).click();
}

/** Opens a page that shares nothing with this one but its origin: what is not ours goes into a sandbox in it. */
export function openPage(html: string): void {
  h("a", { href: urlOf(html, "text/html;charset=utf-8"), target: "_blank", rel: "noopener" }).click();
}

/** Into the clipboard; without leave to write there, from a selection. */
export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "qd-sr", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
