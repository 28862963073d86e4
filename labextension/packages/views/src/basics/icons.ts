/** Icons on a 16 px grid: 1.5 px strokes with round caps in the colour of the text beside them. */

const PATHS = {
  arc: '<path class="qd-spin" d="M8 2a6 6 0 1 1-6 6"/>',
  bars: '<path d="M3 13V8M8 13V3M13 13v-7"/>',
  check: '<path d="m3.5 8.5 3 3 6-7"/>',
  checked: '<circle cx="8" cy="8" r="6"/><path d="m5.5 8.2 1.8 1.8 3.3-3.8"/>',
  chevronDown: '<path d="m4 6 4 4 4-4"/>',
  chevronRight: '<path d="m6 4 4 4-4 4"/>',
  clock: '<circle cx="8" cy="8" r="6"/><path d="M8 4.5V8l2.5 1.5"/>',
  compare: '<rect x="2.5" y="3" width="11" height="10" rx="1"/><path d="M8 3v10"/>',
  copy: '<rect x="5.5" y="5.5" width="8" height="8" rx="1"/><path d="M3 10.5H2.5v-8h8V3"/>',
  cross: '<path d="m4 4 8 8m0-8-8 8"/>',
  dashed: '<circle cx="8" cy="8" r="6" stroke-dasharray="2.4 2.3"/>',
  deck: '<rect x="2" y="4.5" width="9" height="9" rx="1"/><path d="M5 4.5V2.5h9v9h-3"/>',
  download: '<path d="M8 2v8m-3-3 3 3 3-3M3 13h10"/>',
  external: '<path d="M6 3H3v10h10v-3M9 3h4v4M13 3 7.5 8.5"/>',
  failed: '<path d="M5.4 2h5.2L14 5.4v5.2L10.6 14H5.4L2 10.6V5.4z"/><path d="m6 6 4 4m0-4-4 4"/>',
  file: '<path d="M4 2h5l3 3v9H4zM9 2v3h3"/>',
  filter: '<path d="M2.5 3.5h11L9.5 8v4.5l-3 1V8z"/>',
  follow: '<path d="M8 2v9m-4-4 4 4 4-4M3 14h10"/>',
  gear:
    '<circle cx="8" cy="8" r="2.2"/><path d="M8 1.8v2M8 12.2v2M1.8 8h2M12.2 8h2M3.6 3.6 5 5M11 11l1.4 1.4' +
    'M12.4 3.6 11 5M5 11l-1.4 1.4"/>',
  hourglass: '<path d="M5 2h6M5 14h6M5.5 2v2.5L8 8l2.5-3.5V2M5.5 14v-2.5L8 8l2.5 3.5V14"/>',
  idle: '<circle cx="8" cy="8" r="6"/><path d="M5.5 8h5"/>',
  layout: '<rect x="2.5" y="3" width="11" height="10" rx="1"/><path d="M2.5 8h11"/>',
  load: '<path d="M3 3h10M3 13h10M8 5.5v5M5.5 8h5"/>',
  log: '<path d="M2.5 13c5 0 2.5-10 11-10"/>',
  lost: '<circle cx="8" cy="8" r="6"/><path d="M6.3 6.4a1.8 1.8 0 1 1 2.5 1.7c-.5.3-.8.6-.8 1.2M8 11.3v.1"/>',
  more: '<path d="M3.5 8h.1M8 8h.1M12.4 8h.1" stroke-width="2.2"/>',
  pin: '<path d="M6 2h4l-.5 5L12 9.5H4L6.5 7zM8 9.5V14"/>',
  restart: '<path d="M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3"/>',
  search: '<circle cx="7" cy="7" r="4.2"/><path d="m10.2 10.2 3.3 3.3"/>',
  shield: '<path d="M8 2l5 2v4c0 3-2.2 5-5 6-2.8-1-5-3-5-6V4z"/><path d="m6 8 1.5 1.5L10.2 6.6"/>',
  star: '<path d="m8 2 1.8 3.8 4.2.5-3.1 2.9.8 4.1L8 11.3l-3.7 2 .8-4.1L2 6.3l4.2-.5z"/>',
  stop: '<rect x="4" y="4" width="8" height="8" rx="1"/>',
  trash: '<path d="M3 4.5h10M6 4.5V3h4v1.5M4.5 4.5l.5 9h6l.5-9"/>',
  warning: '<path d="M8 2.2 14.3 13H1.7z"/><path d="M8 6.4v3.2M8 11.3v.1"/>',
} as const;

export type IconName = keyof typeof PATHS;

/** An icon for the eye alone: the word stands beside it, or in the button's `aria-label`. */
export function icon(name: IconName, small = false): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", small ? "qd-i qd-i-small" : "qd-i");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = PATHS[name];
  return svg;
}
