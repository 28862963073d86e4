import assert from "node:assert/strict";
import test from "node:test";
import type { Group, Row, Shelf, TensorRow } from "@quarterdeck/protocol/checkpoints";

import { filterOf } from "../src/checkpoints/filter";
import { Items, keyOf, mainMetric } from "../src/checkpoints/items";
import { sparkPoints } from "../src/checkpoints/spark";
import { shapeText, shortType, treeOf } from "../src/checkpoints/tensor_tree";
import type { TreeNode } from "../src/checkpoints/tensor_tree";

function row(step: number, more: Partial<Row> = {}): Row {
  const name = `step-${step}`;
  return { id: `g0/${name}`, step, name, epoch: null, created_ms: step, size_bytes: 1e6, metrics: {}, problem: "", needs: [], pinned: false, best: [], ...more };
}

function group(rows: Row[], more: Partial<Group> = {}): Group {
  return { id: "g0", name: "vit", words: "", path: "/p", created_ms: 1, live: false, rows, ...more };
}

function shelf(groups: Group[], more: Partial<Shelf> = {}): Shelf {
  return { kind: "shelf", where: "", now_ms: 0, whole: true, groups, gone: [], deleted: [], ...more };
}

function steps(items: Items): number[] {
  return items.lines().flatMap((line) => (line.kind === "row" ? [line.row.step] : []));
}

test("every term of a filter has to fit", () => {
  const one = row(1200, { metrics: { accuracy: 0.95 }, best: ["accuracy"] });
  const fits = (text: string): boolean => filterOf(text)(one, group([one]));
  for (const text of ["", "accuracy > 0.9", "accuracy>0.9, best", "Accuracy >= 0.95", "step = 1200", "vit", "size < 2", "valid"]) assert(fits(text), text);
  for (const text of ["accuracy > 0.96", "best, pinned", "loss < 9", "epoch > 0", "damaged", "resnet"]) assert(!fits(text), text);
});

test("a value that is not a number fits no comparison", () => {
  const one = row(1, { metrics: { loss: "nan", high: "inf" } });
  assert(!filterOf("loss > 0")(one, group([one])) && !filterOf("loss < 0")(one, group([one])));
  assert(filterOf("high > 1e300")(one, group([one])));
});

test("what has no value stands last, whichever way is sorted", () => {
  const items = new Items();
  items.apply(shelf([group([row(3, { metrics: { loss: 0.5 } }), row(2), row(1, { metrics: { loss: 0.1 } }), row(0, { metrics: { loss: "nan" } })])]));
  items.order = { key: ":loss", down: false };
  assert.deepEqual(steps(items), [1, 3, 2, 0]);
  items.order = { key: ":loss", down: true };
  assert.deepEqual(steps(items), [3, 1, 2, 0]);
});

test("news replace the groups that they name and no others", () => {
  const items = new Items();
  items.apply(shelf([group([row(1)]), group([row(7, { id: "g1/a" })], { id: "g1", created_ms: 2 })]));
  items.apply(shelf([group([row(2), row(1)])], { whole: false }));
  assert.deepEqual(steps(items), [7, 2, 1]);
  items.apply(shelf([], { whole: false, gone: ["g1"] }));
  assert.deepEqual(items.lines().map(keyOf), ["g0", "g0/step-2", "g0/step-1"]);
  assert.equal(items.get("g1/a"), undefined);
});

test("a folded group keeps its head, a group without a match goes", () => {
  const items = new Items();
  items.apply(shelf([group([row(1)]), group([row(7, { id: "g1/a" })], { id: "g1", name: "other" })]));
  items.folded.add("g0");
  items.filter = "vit";
  assert.deepEqual(items.lines().map(keyOf), ["g0"]);
});

test("the little curve shows the metric that has a best, over steps", () => {
  const rows = [row(20, { metrics: { lr: 1, loss: 1 }, best: ["loss"] }), row(10, { metrics: { lr: 1, loss: 3 } }), row(0, { metrics: { lr: 1, loss: 2 } })];
  assert.equal(mainMetric(group(rows)), "loss");
  const points = sparkPoints(group(rows), "loss");
  assert.equal(points.length, 3);
  const [first, second, third] = points.map(([, y]) => y);
  assert((second ?? 0) < (first ?? 0) && (first ?? 0) < (third ?? 0), "smaller values lie lower");
  assert.deepEqual(sparkPoints(group([rows[0] as Row]), "loss"), []);
});

function tensor(name: string, part: "model" | "optimizer" = "model"): TensorRow {
  return [name, [2], "float32", 8, part, ""];
}

function drawn(nodes: readonly TreeNode[]): unknown[] {
  return nodes.map((node) => (node.kind === "leaf" ? node.name : [node.name, drawn(node.nodes)]));
}

test("tensors lie by layer, and short names stay whole", () => {
  const names = ["head.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.weight", "blocks.1.mlp.bias", "scale"];
  assert.deepEqual(drawn(treeOf([...names.map((name) => tensor(name)), tensor("head.weight.exp_avg", "optimizer")])), [
    "head.weight",
    ["blocks", [["0", ["attn.qkv.weight", "attn.qkv.bias"]], ["1", ["attn.qkv.weight", "mlp.bias"]]]],
    "scale",
    ["optimizer state", ["head.weight.exp_avg"]],
  ]);
});

test("a tensor whose name is the folder of another is not lost", () => {
  const count = (nodes: readonly TreeNode[]): number => nodes.reduce((sum, node) => sum + (node.kind === "leaf" ? 1 : count(node.nodes)), 0);
  assert.equal(count(treeOf(["a", "a.b", "a.c.0", "a.c.1", ""].map((name) => tensor(name)))), 5);
});

test("shapes and types are short", () => {
  assert.deepEqual([[], [3], [2, 3]].map(shapeText), ["()", "(3,)", "(2, 3)"]);
  assert.deepEqual(["float32", "bfloat16", "int64", "uint8", "bool", "float8_e4m3fn"].map(shortType), ["f32", "bf16", "i64", "u8", "bool", "f8_e4m3fn"]);
});
