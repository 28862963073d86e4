/** All that the browser knows, and the lines of its list: heads of groups and their checkpoints, sorted and
 * filtered. Pure. */

import type { Group, Row, Shelf } from "@quarterdeck/protocol/checkpoints";

import { filterOf, metricOf } from "./filter";

export interface Head {
  readonly kind: "group";
  readonly group: Group;
  readonly open: boolean;
  /** Rows of it that fit the filter. */
  readonly count: number;
}

export interface Entry {
  readonly kind: "row";
  readonly group: Group;
  readonly row: Row;
}

export type Item = Head | Entry;

export const keyOf = (item: Item): string => (item.kind === "group" ? item.group.id : item.row.id);

/** "step", "age", "size", or a metric after ":". */
export type SortKey = "step" | "age" | "size" | `:${string}`;

export interface Order {
  key: SortKey;
  down: boolean;
}

export class Items {
  private groups: Group[] = [];
  private readonly rows = new Map<string, Entry>();
  readonly folded = new Set<string>();
  order: Order = { key: "step", down: true };
  filter = "";

  apply(shelf: Shelf): void {
    const next = new Map(shelf.whole ? [] : this.groups.map((group) => [group.id, group]));
    for (const id of shelf.gone) next.delete(id);
    for (const group of shelf.groups) next.set(group.id, group);
    this.groups = [...next.values()].sort((a, b) => b.created_ms - a.created_ms || a.name.localeCompare(b.name));
    this.rows.clear();
    for (const group of this.groups) for (const row of group.rows) this.rows.set(row.id, { kind: "row", group, row });
  }

  get all(): readonly Group[] {
    return this.groups;
  }

  get(id: string | null): Entry | undefined {
    return id === null ? undefined : this.rows.get(id);
  }

  get count(): number {
    return this.rows.size;
  }

  get size_bytes(): number {
    return [...this.rows.values()].reduce((sum, { row }) => sum + row.size_bytes, 0);
  }

  /** Names of metrics, those that most have first. */
  metrics(): string[] {
    const counts = new Map<string, number>();
    for (const { row } of this.rows.values()) {
      for (const name of Object.keys(row.metrics)) counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const known = [...counts.keys()];
    return known.sort((a, b) => (counts.get(b) ?? 0) - (counts.get(a) ?? 0) || known.indexOf(a) - known.indexOf(b));
  }

  /** Lines of the list, from the top. A group without a fitting row is left out. */
  lines(): Item[] {
    const fits = filterOf(this.filter);
    const found: Item[] = [];
    for (const group of this.groups) {
      const rows = group.rows.filter((row) => fits(row, group)).sort((a, b) => this.compare(a, b));
      if (rows.length === 0) continue;
      const open = !this.folded.has(group.id);
      found.push({ kind: "group", group, open, count: rows.length });
      if (open) found.push(...rows.map((row) => ({ kind: "row", group, row }) as const));
    }
    return found;
  }

  private compare(a: Row, b: Row): number {
    const [left, right] = [sortValue(a, this.order.key), sortValue(b, this.order.key)];
    const [leftIs, rightIs] = [!Number.isNaN(left), !Number.isNaN(right)];
    if (leftIs !== rightIs) return leftIs ? -1 : 1;
    const sign = this.order.down ? -1 : 1;
    return (leftIs && left !== right ? sign * (left - right) : 0) || b.step - a.step;
  }
}

function sortValue(row: Row, key: SortKey): number {
  if (key === "step") return row.step;
  if (key === "age") return row.created_ms;
  return key === "size" ? row.size_bytes : metricOf(row, key.slice(1));
}

/** The metric that a group's line of little curves shows: one that has a best, else the first. */
export function mainMetric(group: Group): string | null {
  const best = group.rows.find((row) => row.best.length > 0)?.best[0];
  return best ?? Object.keys(group.rows[0]?.metrics ?? {})[0] ?? null;
}
