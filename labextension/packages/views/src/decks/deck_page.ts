/** What is done to a deck's page before it is shown, opened or saved, and what is believed of its messages.
 * Pure: no DOM. Called by decks.ts and deck_frame.ts. */

import type { Theme } from "../basics/panel";

const LEAST_PX = 120;
const MOST_PX = 2_000;

/** The page with the theme on its root. The parser merges our `<html>` with the page's own: ours comes first
 * and wins, whatever the page holds. */
export function themed(html: string, theme: Theme): string {
  return `<!doctype html><html data-theme="${theme}">${html}`;
}

/** A page for a tab of its own. The deck stays in a sandbox there: a blob's page has the notebook's origin. */
export function wrapped(name: string, html: string, theme: Theme): string {
  const style =
    "html,body{margin:0;height:100%;overflow:hidden}iframe{display:block;width:100%;height:100%;border:0}" +
    `html{background:${theme === "dark" ? "#111" : "#fff"}}`;
  // The frames within a deck's page hear of the theme from it, and it from us.
  const script =
    'const frame=document.querySelector("iframe");frame.addEventListener("load",()=>' +
    `frame.contentWindow.postMessage({quarterdeck:"theme",theme:"${theme}"},"*"))`;
  return (
    `<!doctype html><html><head><meta charset="utf-8"><title>${escaped(name)}</title><style>${style}</style>` +
    `</head><body><iframe sandbox="allow-scripts" title="${escaped(name)}" ` +
    `srcdoc="${escaped(themed(html, theme))}"></iframe><script>${script}</script></body></html>`
  );
}

export function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll('"', "&quot;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}

/** "val samples-rank-2.html": without anything that a file system minds. */
export function fileName(name: string, rank: number | null): string {
  const safe = name.replace(/[\u0000-\u001f\\/:*?"<>|]+/g, "_").replace(/^\.+/, "").trim().slice(0, 80);
  return `${safe === "" ? "deck" : safe}${rank === null ? "" : `-rank-${rank}`}.html`;
}

/** The height that a page asks for in px, within bounds; null for any other message. */
export function heightOf(data: unknown): number | null {
  if (typeof data !== "object" || data === null) return null;
  const { quarterdeck, px } = data as { quarterdeck?: unknown; px?: unknown };
  if (quarterdeck !== "height" || typeof px !== "number" || !Number.isFinite(px)) return null;
  return Math.min(MOST_PX, Math.max(LEAST_PX, Math.ceil(px)));
}
