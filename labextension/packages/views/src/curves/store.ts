/** All that is known of the curves of this run and of those that it is compared with. Pure. */

import type { Curves, Detail } from "@quarterdeck/protocol/run";

import { detailLines, exact, Line, merged, RunCurves } from "./data";
import type { Lines } from "./data";

interface Finer {
  first: number;
  last: number;
  lines: Lines;
}

export class CurveStore {
  /** The id of this view's run; the first that arrives if it is not known yet. */
  runId: string | null = null;
  private readonly runs = new Map<string, RunCurves>();
  private readonly finer = new Map<string, Finer>();
  private readonly mergedLines = new Map<string, { versions: string; lines: Lines }>();

  own(): RunCurves {
    return this.run(this.runId ?? "");
  }

  run(runId: string): RunCurves {
    let run = this.runs.get(runId);
    if (!run) this.runs.set(runId, (run = new RunCurves()));
    return run;
  }

  /** Names of changed metrics; null if something is missing and all must be asked for again. */
  apply(message: Curves, buffer: Float64Array): Set<string> | null {
    this.runId ??= message.run_id;
    return this.run(message.run_id).apply(message, buffer);
  }

  /** Takes finer points for a part of one metric. */
  refine(message: Detail, buffer: Float64Array): void {
    const lines = detailLines(message.series, buffer);
    this.finer.set(message.name, { first: message.first_step, last: message.last_step, lines });
  }

  coarse(): void {
    this.finer.clear();
    this.mergedLines.clear();
  }

  /** Lines of this run's metric, with finer points where they are there. */
  lines(name: string): Lines {
    const lines = this.own().lines(name);
    const finer = this.finer.get(name);
    if (!finer) return lines;
    const versions = [...lines.values()].map((line) => line.version).join() + ` ${finer.first} ${finer.last}`;
    const known = this.mergedLines.get(name);
    if (known?.versions === versions) return known.lines;
    const fine: Lines = new Map();
    for (const [who, line] of lines) fine.set(who, merged(line, finer.lines.get(who) ?? new Line(), finer.first));
    this.mergedLines.set(name, { versions, lines: fine });
    return fine;
  }

  /** Whether the kernel has anything finer between these steps than what is here. */
  canRefine(name: string, first: number, last: number): boolean {
    return [...this.own().lines(name).values()].some((line) => !exact(line, first, last));
  }

  /** Ends of all lines of this run, by a column; null without points. */
  range(column: "step" | "time"): readonly [number, number] | null {
    let [low, high] = [Infinity, -Infinity];
    for (const lines of this.own().metrics.values()) {
      for (const line of lines.values()) {
        if (line.count === 0) continue;
        low = Math.min(low, line[column][0] ?? Infinity);
        high = Math.max(high, line[column][line.count - 1] ?? -Infinity);
      }
    }
    return low <= high ? [low, high] : null;
  }
}
