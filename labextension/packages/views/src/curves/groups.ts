/** Puts metrics into groups by what stands before the first slash of their names. Pure. */

export interface Group {
  /** "train"; "" for names without a slash. */
  prefix: string;
  names: string[];
}

/** Above this many metrics only the first group is open at first. */
export const MANY = 12;

/** Groups in order of their first metric. */
export function groupsOf(names: readonly string[]): Group[] {
  const groups = new Map<string, Group>();
  for (const name of names) {
    const slash = name.indexOf("/");
    const prefix = slash > 0 ? name.slice(0, slash) : "";
    const group = groups.get(prefix) ?? { prefix, names: [] };
    group.names.push(name);
    groups.set(prefix, group);
  }
  return [...groups.values()];
}

/** Headings are worth their room only where some group fills a row; else all charts stand in one grid. */
export function headed(groups: readonly Group[]): boolean {
  const all = groups.reduce((n, group) => n + group.names.length, 0);
  return groups.length > 1 && all > 4;
}
