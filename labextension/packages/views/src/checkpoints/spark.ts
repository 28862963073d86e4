/** A curve of one metric over a run's checkpoints, small enough for a line of the list. */

import type { Group } from "@quarterdeck/protocol/checkpoints";

import { metricOf } from "./filter";
import { mainMetric } from "./items";

const WIDTH = 96;
const HEIGHT = 18;
const MOST = 200;

export type Point = readonly [x: number, y: number];

/** In pixels; empty where less than two values are finite. */
export function sparkPoints(group: Group, name: string): Point[] {
  const rows = group.rows.filter((row) => row.step >= 0 && Number.isFinite(metricOf(row, name)));
  const all = rows.sort((a, b) => a.step - b.step);
  const every = Math.ceil(all.length / MOST);
  const some = all.filter((_, at) => at % every === 0 || at === all.length - 1);
  const [first, last] = [some[0]?.step ?? 0, some[some.length - 1]?.step ?? 0];
  if (some.length < 2 || first === last) return [];
  const values = some.map((row) => metricOf(row, name));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return some.map((row, at) => {
    const share = high === low ? 0.5 : ((values[at] ?? low) - low) / (high - low);
    return [2 + ((row.step - first) / (last - first)) * (WIDTH - 5), HEIGHT - 3 - share * (HEIGHT - 6)];
  });
}

export function sparkline(group: Group): SVGSVGElement | null {
  const name = mainMetric(group);
  const points = name === null ? [] : sparkPoints(group, name);
  const end = points[points.length - 1];
  if (end === undefined || name === null) return null;
  const svg = svgEl("svg", { width: WIDTH, height: HEIGHT, class: "qd-ck-spark", role: "img", "aria-label": `${name} over steps` });
  const d = `M${points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ")}`;
  const title = svgEl("title", {});
  title.textContent = `${name} over steps`;
  svg.append(title, svgEl("path", { d }), svgEl("circle", { cx: end[0], cy: end[1], r: 2 }));
  return svg;
}

export function svgEl<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | number>>,
): SVGElementTagNameMap[K] {
  const el = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) el.setAttribute(name, String(value));
  return el;
}
