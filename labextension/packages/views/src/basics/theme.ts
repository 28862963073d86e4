/** Whether the page around the view is dark, and when that changes. */

import type { Theme } from "./panel";

const MARKS = ["data-jp-theme-light", "class", "theme", "data-vscode-theme-kind"];
/** Style sheets of a theme arrive some time after its mark. */
const SETTLE_MS = 400;

/** Theme of the page that this element is in. */
export function themeOf(el: Element): Theme {
  const marked = el.closest("[data-jp-theme-light]") ?? document.querySelector("body[data-jp-theme-light]");
  if (marked) return marked.getAttribute("data-jp-theme-light") === "false" ? "dark" : "light";
  if (document.querySelector(".vscode-dark, .vscode-high-contrast, [theme=dark]")) return "dark";
  if (document.querySelector(".vscode-light, [theme=light]")) return "light";
  const surface = getComputedStyle(el).getPropertyValue("--jp-layout-color0").trim();
  if (surface) return isDark(surface) ? "dark" : "light";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function isDark(colour: string): boolean {
  const probe = document.createElement("canvas").getContext("2d");
  if (!probe) return false;
  probe.fillStyle = colour;
  const hex = /^#(..)(..)(..)$/.exec(probe.fillStyle);
  if (!hex) return false;
  const [r = 255, g = 255, b = 255] = hex.slice(1).map((part) => parseInt(part, 16));
  return 0.3 * r + 0.59 * g + 0.11 * b < 128;
}

/** Calls back whenever the theme may have changed, until the signal is aborted. */
export function onTheme(changed: () => void, signal: AbortSignal): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = (): void => {
    changed();
    clearTimeout(timer);
    timer = setTimeout(changed, SETTLE_MS);
  };
  const watch = new MutationObserver(look);
  for (const el of [document.documentElement, document.body]) watch.observe(el, { attributeFilter: MARKS });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look, { signal });
  signal.addEventListener("abort", () => {
    watch.disconnect();
    clearTimeout(timer);
  });
}
