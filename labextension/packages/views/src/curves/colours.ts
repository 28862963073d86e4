/** The tokens as a canvas needs them: resolved for the theme that the view has at the moment. */

export interface Colours {
  bg: string;
  fg2: string;
  line: string;
  soft: string;
  mean: string;
  ranks: string[];
  runs: string[];
  font: string;
}

/** Reads them from an element of the view that is in the page. */
export function coloursOf(el: Element): Colours {
  const style = getComputedStyle(el);
  const token = (name: string): string => style.getPropertyValue(`--qd-${name}`).trim();
  return {
    bg: token("bg"),
    fg2: token("fg2"),
    line: token("line"),
    soft: token("soft"),
    mean: token("mean"),
    ranks: Array.from({ length: 8 }, (_, rank) => token(`r${rank}`)),
    runs: [token("acc"), token("fg2"), token("warn"), token("ctl")],
    font: `11px ${token("ui") || "sans-serif"}`,
  };
}

/** CSS variables of compared runs, in the order of `Colours.runs`. */
export const RUN_TOKENS = ["--qd-acc", "--qd-fg2", "--qd-warn", "--qd-ctl"] as const;

/** Dashes of compared runs, so that two are told apart without colour. */
export const RUN_DASHES = [[6, 3], [2, 3], [8, 3, 2, 3], [3, 6]] as const;
