import assert from "node:assert/strict";
import { test } from "node:test";
import type { Fault } from "@quarterdeck/protocol/run";

import { report, rootOf, titleParts, traceParts } from "../src/faults/fault_words";

const fault = (more: Partial<Fault>): Fault => ({
  title: "ValueError on rank 1: no",
  code: "ValueError",
  detail: "",
  ranks: [1],
  root: false,
  traceback: "",
  evidence: [],
  ...more,
});
const root = fault({ root: true, detail: "14:26:37", traceback: "Traceback\nValueError: no\n\n" });
const killed = fault({
  title: "Earlier: rank 2 was killed by SIGKILL",
  code: "",
  evidence: [{ label: "Memory", text: "full" }, { label: "Last output", text: "a\nnote" }],
});

test("without a mark the first fault is the root cause", () => {
  assert.equal(rootOf([killed, fault({})]), killed);
  assert.equal(rootOf([killed, root]), root);
  assert.equal(rootOf([]), undefined);
});

test("an exception's name is code, and other titles are text", () => {
  const title = "Also: torch.cuda.OutOfMemoryError on ranks 0 and 1: x\ny";
  assert.deepEqual(titleParts(fault({ title, code: "torch.cuda.OutOfMemoryError" })), [
    "Also: ",
    "torch.cuda.OutOfMemoryError",
    " on ranks 0 and 1: x\ny",
  ]);
  assert.deepEqual(titleParts(killed), [killed.title, "", ""]);
  assert.deepEqual(titleParts(fault({ title: "cut o…", code: "Cut" })), ["cut o…", "", ""]);
});

test("the report holds all faults as plain text", () => {
  assert.equal(
    report([root, killed]),
    "1. ValueError on rank 1: no\n\n14:26:37\n\nTraceback\nValueError: no\n\n\n" +
      "2. Earlier: rank 2 was killed by SIGKILL\n\nMemory: full\nLast output: a\nnote\n",
  );
});

test("frames of libraries are folded, frames of one's own are shown", () => {
  const own = "Cell In[3], line 2, in train_step(x)\n      1 def train_step(x):\n----> 2     cross_entropy(x)";
  const torch = "File /venv/lib/python3.11/site-packages/torch/nn/functional.py:3555, in cross_entropy(x)\n-> 3555 return";
  const std = "File /usr/lib/python3.11/json/decoder.py:337, in decode(self, s)\n    337 obj";
  const parts = traceParts(`ValueError      Traceback (most recent call last)\n${own}\n\n${torch}\n\n${std}\n\n${own}`);
  assert.deepEqual(parts.map(({ summary }) => summary), ["", "2 frames in libraries, the last: json/decoder.py:337", ""]);
  assert.equal(parts[1]?.text, `${torch}\n\n${std}`);
  assert.equal(parts[2]?.text, own);
});

test("a traceback in another form is shown as it is", () => {
  const text = 'Traceback (most recent call last):\n  File "/usr/lib/python3.11/x.py", line 1, in f\nValueError: no';
  assert.deepEqual(traceParts(text), [{ text, summary: "" }]);
});
