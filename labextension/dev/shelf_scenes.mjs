// Made-up messages for the checkpoint browser: each scene is a list of messages; `answers` replies to requests.

const NOW = Date.now();
const MIN = 60_000;

function row(group, step, ageMin, metrics, more = {}) {
  return {
    id: `${group}/step-${step}`, step, name: `step-${String(step).padStart(8, "0")}`, epoch: Math.round(step / 98), created_ms: NOW - ageMin * MIN,
    size_bytes: 264e6, metrics, problem: "", needs: [], pinned: false, best: [], ...more,
  };
}

const groups = [
  {
    id: "g0", name: "vit-s16-imagenette", words: "failed at step 1,342: rank 1 raised ValueError", path: "project/.quarterdeck/runs/a/checkpoints", created_ms: NOW - 10 * MIN, live: false,
    rows: [
      row("g0", 1300, 1, { loss: 0.398, accuracy: 0.911 }, { best: ["loss"] }),
      row("g0", 1200, 2, { loss: 0.409, accuracy: 0.914 }, { best: ["accuracy"] }),
      row("g0", 1100, 2.5, { loss: 0.421, accuracy: 0.902 }, { needs: ["posix.system", "__main__.Config"] }),
      row("g0", 1000, 3, { loss: 0.431, accuracy: 0.889 }, { pinned: true }),
      row("g0", 500, 4, { loss: 0.874, accuracy: 0.781 }, { pinned: true }),
      row("g0", 400, 5, {}, { size_bytes: 61e6, problem: "its file model.safetensors is missing", epoch: null }),
    ],
  },
  {
    id: "g1", name: "vit-s16-baseline", words: "succeeded in 58 min 2 s", path: "/b", created_ms: NOW - 1500 * MIN, live: false,
    rows: [row("g1", 2940, 1400, { loss: 0.214, accuracy: 0.921 }, { best: ["loss", "accuracy"] }), row("g1", 2900, 1410, { loss: 0.219, accuracy: 0.919 }), row("g1", 2000, 1420, { loss: 0.4, accuracy: 0.89 })],
  },
  {
    id: "g2", name: "vit-s16-lr-3e-3, <img src=x onerror=alert(1)>", words: "stopped by you at step 620", path: "/c", created_ms: NOW - 3000 * MIN, live: false,
    rows: [row("g2", 600, 2900, { loss: 0.702, accuracy: 0.832 }, { best: ["loss", "accuracy"] }), row("g2", 500, 2901, { loss: 0.779, accuracy: "nan" }), row("g2", 400, 2902, { loss: 0.914, accuracy: 0.764 })],
  },
];

const shelfOf = (more = {}) => ({ kind: "shelf", where: "all runs in .quarterdeck", now_ms: NOW, whole: true, groups, gone: [], deleted: [], ...more });

const many = () => {
  const rows = Array.from({ length: 1000 }, (_, i) => row("g9", 10 * (1000 - i), i, { loss: 0.3 + i / 900 + 0.1 * Math.sin(i / 9), accuracy: 0.9 - i / 2000 }, i === 0 ? { best: ["loss", "accuracy"] } : {}));
  return shelfOf({ groups: [{ ...groups[0], id: "g9", name: "llama-8b", words: "running", live: true, rows }] });
};

const tensors = [["patch_embed.proj.weight", [384, 3, 16, 16]], ["patch_embed.proj.bias", [384]], ["pos_embed", [1, 197, 384]], ["head.weight", [10, 384]], ["head.bias", [10]]];
for (let block = 0; block < 12; block += 1) {
  for (const [name, shape] of [["attn.qkv.weight", [1152, 384]], ["attn.qkv.bias", [1152]], ["attn.proj.weight", [384, 384]], ["mlp.fc1.weight", [1536, 384]], ["mlp.fc2.weight", [384, 1536]], ["norm1.weight", [384]], ["norm2.weight", [384]]]) {
    tensors.push([`blocks.${block}.${name}`, shape]);
  }
}
const rows = tensors.map(([name, shape]) => [name, shape, "float32", 4 * shape.reduce((a, b) => a * b, 1), "model", ""]);
for (const [name, shape] of tensors.slice(0, 4)) rows.push([`${name}.exp_avg`, shape, "float32", 4 * shape.reduce((a, b) => a * b, 1), "optimizer", ""]);

const values = { lr: "0.001", batch_size: "24", "optimizer.name": "'AdamW'", "optimizer.weight_decay": "0.05", epochs: "30", seed: "17", schedule: "'cosine'", amp: "'bf16'" };

export function answer(message) {
  if (message.kind === "wantdetail") {
    const found = groups.flatMap((group) => group.rows).find((one) => one.id === message.id);
    const bad = found?.problem ?? "";
    return [{
      kind: "detail", id: message.id, facts: [{ name: "saved", value: "2026-08-20 14:26:18" }, { name: "ranks", value: "4" }, { name: "model", value: "VisionTransformer" }, { name: "folder", value: `project/.quarterdeck/runs/a/checkpoints/${message.id}` }],
      hyperparameters: bad ? [] : Object.entries(values).map(([name, value]) => ({ name, value })), parameters: 21.7e6, tensors: bad ? [] : rows, problem: bad,
      resume: "%%distributed --resume .quarterdeck/runs/a/checkpoints/step-00001200\nmodel = VisionTransformer()\ntrain(model)",
    }];
  }
  if (message.kind === "wantstatistics") {
    const counts = Array.from({ length: 48 }, (_, i) => Math.round(9000 * Math.exp(-(((i - 23.5) / 9) ** 2)) * (1 + 0.08 * Math.sin(i * 7))));
    return [{ kind: "statistics", id: message.id, tensor: message.tensor, values: 442368, looked_at: 442368, mean: 2.1e-5, std: 0.0312, least: -0.142, greatest: 0.151, zeros: 0, nans: 0, infs: 0, counts, note: "" }];
  }
  if (message.kind === "compare") {
    const pairs = [["lr", "0.0005", "0.001"], ["optimizer.weight_decay", "0.1", "0.05"], ["amp", null, "'bf16'"], ["seed", "17", "17"], ["epochs", "30", "30"], ["metrics: accuracy", "0.921", "0.914"], ["metrics: loss", "0.214", "0.409"], ["world_size", "2", "4"], ["torch", "2.13.0", "2.13.0"]];
    const changes = rows.filter((one) => one[4] === "model").map(([name, shape], i) => [name, shape, i === 2 ? null : i === 5 ? 0 : 0.9 * Math.exp(-i / 9), i === 2 ? "has another shape: (1, 257, 384)" : ""]);
    return [{ kind: "comparison", left: message.left, right: message.right, pairs, changes, only_left: ["aux.weight"], only_right: [], done: changes.length, total: changes.length, sampled: false }];
  }
  if (message.kind === "delete") return [{ kind: "done", about: "delete", id: message.id, text: "Deleted step 1,300." }, shelfOf({ whole: false, groups: [{ ...groups[0], rows: groups[0].rows.filter((one) => one.id !== message.id) }], deleted: [{ id: "d1", words: "step 1,300" }] })];
  if (message.kind === "undo") return [shelfOf()];
  if (message.kind === "load") return [{ kind: "done", about: "load", id: message.id, text: `\`${message.name}\` holds step 1,200: \`${message.name}.model\` is its state dict.` }];
  return [];
}

export const shelf = {
  shelf: () => [shelfOf()],
  shelfMany: () => [many()],
  shelfEmpty: () => [shelfOf({ groups: [] })],
  shelfDeleted: () => [shelfOf({ deleted: [{ id: "d1", words: "step 1,100" }, { id: "d2", words: "step 900" }] })],
  shelfTrouble: () => [shelfOf(), { kind: "trouble", about: "load", id: "g0/step-1300", text: "`model` is a variable of the notebook already (Net).\nChoose another name." }],
};
