/** Tensors by layer: "blocks.0.attn.qkv.weight" lies in "blocks", in "0". Pure. */

import type { TensorRow } from "@quarterdeck/protocol/checkpoints";

export interface Leaf {
  readonly kind: "leaf";
  /** What the folders above do not say yet. */
  readonly name: string;
  readonly tensor: TensorRow;
}

export interface Folder {
  readonly kind: "folder";
  readonly name: string;
  /** Where it is, as a key. */
  readonly path: string;
  readonly nodes: readonly TreeNode[];
  readonly tensors: number;
  readonly size_bytes: number;
}

export type TreeNode = Leaf | Folder;

/** More tensors than these are not listed under one name without folders. */
const FEW = 24;
const NUMBER = /^\d+$/;

interface Part {
  readonly rest: readonly string[];
  readonly tensor: TensorRow;
}

export function treeOf(tensors: readonly TensorRow[]): TreeNode[] {
  const parts = (part: string): Part[] =>
    tensors.filter((tensor) => tensor[4] === part).map((tensor) => ({ rest: tensor[0].split("."), tensor }));
  const found = nodesOf(parts("model"), "", 0);
  const optimizer = parts("optimizer");
  if (optimizer.length === 0) return found;
  return [...found, folder("optimizer state", "\0optimizer", nodesOf(optimizer, "\0optimizer", 1), optimizer)];
}

function nodesOf(parts: readonly Part[], path: string, depth: number): TreeNode[] {
  const groups = new Map<string, Part[]>();
  for (const part of parts) {
    const key = part.rest[0] ?? "";
    groups.set(key, [...(groups.get(key) ?? []), part]);
  }
  return [...groups].flatMap(([key, members]): TreeNode[] => {
    const folds = members.length > 1 && (depth === 0 || NUMBER.test(key) || members.length > FEW);
    if (!folds || members.some((one) => one.rest.length < 2)) return members.map((one) => leaf(one));
    const below = members.map(({ rest, tensor }) => ({ rest: rest.slice(1), tensor }));
    const inside = `${path}.${key}`;
    const nodes = nodesOf(below, inside, depth + 1);
    const [only] = nodes;
    if (nodes.length === 1 && only?.kind === "folder") return [{ ...only, name: `${key}.${only.name}` }];
    return [folder(key, inside, nodes, members)];
  });
}

function leaf({ rest, tensor }: Part): Leaf {
  return { kind: "leaf", name: rest.join("."), tensor };
}

function folder(name: string, path: string, nodes: readonly TreeNode[], parts: readonly Part[]): Folder {
  const size_bytes = parts.reduce((sum, { tensor }) => sum + tensor[3], 0);
  return { kind: "folder", name, path, nodes, tensors: parts.length, size_bytes };
}

const SHORT: Readonly<Record<string, string>> = { bfloat16: "bf16", complex64: "c64", complex128: "c128" };

/** f32, bf16, i64 */
export function shortType(dtype: string): string {
  return SHORT[dtype] ?? dtype.replace(/^float(\d+)/, "f$1").replace(/^int/, "i").replace(/^uint/, "u");
}

/** As Python writes it: (1152, 384), (10,), (). */
export function shapeText(shape: readonly number[]): string {
  return shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
}
