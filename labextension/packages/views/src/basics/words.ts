/** How numbers, times, sizes and ranks are written. Pure. Twin of `quarterdeck.present.words`, which writes the
 * cells and the static form: `tests/contract` holds the two together, case by case. */

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 1,204 */
export function integer(value: number): string {
  return Number.isFinite(value) ? GROUPED.format(value) : unreal(value);
}

function unreal(value: number): string {
  return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

/** A metric: three decimals, four significant digits below 0.01, 1.2e-5 below 0.001; "" if there is none. */
export function metric(value: number | null | undefined): string {
  if (value === null || value === undefined) return "";
  if (!Number.isFinite(value)) return unreal(value);
  const size = Math.abs(value);
  if (size === 0) return "0.000";
  if (size < 1e-3) return scientific(value, 2);
  if (size < 0.01) return String(Number(value.toPrecision(4)));
  if (size >= 1e7) return scientific(value, 4);
  if (Number.isInteger(value) && size >= 1000) return integer(value);
  return size >= 1000 ? grouped(value, size >= 1e5 ? 0 : 1) : value.toFixed(3);
}

function scientific(value: number, digits: number): string {
  const [front = "", power = ""] = value.toExponential(digits - 1).split("e");
  return `${front.replace(/\.?0+$/, "")}e${power.replace("+", "")}`;
}

function grouped(value: number, decimals: number): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** A number on an axis: no more digits than it takes to tell it from the next tick `step` away. */
export function tick(value: number, step: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return scientific(value, 3);
  let decimals = Math.min(6, Math.max(0, -Math.floor(Math.log10(step || 1) + 1e-9)));
  const unit = step * 10 ** decimals;
  if (decimals < 6 && Math.abs(unit - Math.round(unit)) > 1e-6) decimals += 1; // 0.25, 2.5
  return grouped(value, decimals);
}

/** A whole tick on the x axis: 800, 12k, 1.5M. */
export function steps(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e13) return scientific(value, 3);
  for (const [unit, word] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]] as const) {
    if (size >= unit) return `${Number((value / unit).toPrecision(4))}${word}`;
  }
  return size >= 1e5 ? `${Number((value / 1e3).toPrecision(6))}k` : integer(value);
}

/** A duration from seconds: 0.38 ms, 38 ms, 0.21 s, 58 s, 2 min 23 s, 3 h 04 min, 2 d 5 h. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds > 0 && seconds < 0.000995) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  if (seconds < 0.1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${Number(seconds.toFixed(seconds < 0.995 ? 2 : 1))} s`;
  return wholeDuration(seconds);
}

/** The same, without parts of a second: what ticks once a second must not jump in width. */
export function wholeDuration(seconds: number): string {
  const all = Math.max(0, Math.round(seconds));
  const [d, hours, min, s] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
  if (d > 0) return `${d} d ${hours} h`;
  if (hours > 0) return `${hours} h ${String(min).padStart(2, "0")} min`;
  return min > 0 ? `${min} min ${s} s` : `${s} s`;
}

/** "about 3 min 27 s left" */
export function left(seconds: number): string {
  return `about ${wholeDuration(seconds)} left`;
}

/** Milliseconds without unit, for a column whose head has it: 118, 9.4, 0.38. */
export function ms(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "";
  return value >= 9.95 ? integer(value) : value >= 0.995 ? value.toFixed(1) : value.toFixed(2);
}

/** 8.4 steps/s; below one a second: 3.2 s a step. */
export function rate(stepsPerSecond: number | null): string {
  if (stepsPerSecond === null || !Number.isFinite(stepsPerSecond) || stepsPerSecond <= 0) return "";
  if (stepsPerSecond < 1) return `${duration(1 / stepsPerSecond)} a step`;
  return `${stepsPerSecond >= 99.5 ? integer(stepsPerSecond) : stepsPerSecond.toFixed(1)} steps/s`;
}

/** The size of a file, in units of 1000: 412 kB, 1.3 MB. */
export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let at = 0;
  while (value >= 999.5 && at < units.length - 1) [value, at] = [value / 1000, at + 1];
  return `${value < 9.95 ? value.toFixed(1) : integer(value)} ${units[at] ?? ""}`;
}

/** A size of memory, in GiB without unit: 11.4, 0.38. */
export function gib(bytes: number | null): string {
  if (bytes === null) return "";
  const value = bytes / 2 ** 30;
  return value >= 99.5 ? integer(value) : value < 0.995 ? value.toFixed(2) : value.toFixed(1);
}

/** 38% */
export function percent(value: number | null): string {
  return value === null ? "" : `${integer(value)}%`;
}

/** 14:26:02, in the reader's time zone. */
export function clock(timeMs: number): string {
  if (!Number.isFinite(timeMs) || timeMs <= 0) return "";
  const at = new Date(timeMs);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

/** How long ago: "1 min", "3 h", "yesterday", then the date. */
export function age(timeMs: number, nowMs: number): string {
  const at = new Date(timeMs);
  const day = (date: Date): number => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
  const days = Math.round((day(new Date(nowMs)) - day(at)) / 86_400_000);
  if (days === 1) return "yesterday";
  if (days > 1) return `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, "0")}-${String(at.getDate()).padStart(2, "0")}`;
  const minutes = Math.floor(Math.max(0, nowMs - timeMs) / 60_000);
  return minutes < 1 ? "just now" : minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}

/** In running text: "rank 2", "ranks 0, 1 and 3", "ranks 0–3 and 5". Of `worldSize` ranks in all, if that is known. */
export function ranksInText(ranks: readonly number[], worldSize = 0): string {
  const parts = rankParts(ranks, worldSize);
  const last = parts.pop() ?? "";
  if (parts.length === 0) return last === "" ? "" : `rank${last.includes("–") ? "s" : ""} ${last}`;
  return `ranks ${parts.join(", ")} and ${last}`;
}

/** In a chip, with en dashes: "0–3", "0, 2–4". */
export function ranksInChip(ranks: readonly number[], worldSize = 0): string {
  return rankParts(ranks, worldSize).join(", ");
}

/** Three or more in a row (or all of them) as "0–3", others one by one. */
function rankParts(ranks: readonly number[], worldSize: number): string[] {
  const parts: string[] = [];
  const sorted = [...ranks].sort((a, b) => a - b);
  for (let at = 0; at < sorted.length; ) {
    let end = at;
    while (sorted[end + 1] === (sorted[end] ?? 0) + 1) end += 1;
    const all = at < end && sorted[at] === 0 && sorted[end] === worldSize - 1;
    if (end - at >= 2 || all) parts.push(`${sorted[at]}–${sorted[end]}`);
    else for (let i = at; i <= end; i += 1) parts.push(String(sorted[i]));
    at = end + 1;
  }
  return parts;
}

/** "1 run", "3 runs", "12,345 lines" */
export function count(n: number, word: string): string {
  return `${integer(n)} ${word}${n === 1 ? "" : "s"}`;
}
