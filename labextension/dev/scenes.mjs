// Made-up messages of a kernel, for looking at the view: each scene is a list of [message, numbers or null].

const START = Date.now() - 143_000;

let seed = 1;
function random() {
  seed = (seed * 16807) % 2147483647;
  return seed / 2147483647;
}

/** Six columns for points of a line. */
function columns(points) {
  const all = new Float64Array(points.length * 6);
  points.forEach(([step, time, min, max, mean, last], i) => {
    [step, time, min, max, mean, last].forEach((value, column) => (all[column * points.length + i] = value));
  });
  return all;
}

function joined(parts) {
  const all = new Float64Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function loss(rank, step, width, end) {
  const value = 2.2 * Math.exp((-3 * step) / end) + 0.35 + 0.5 * (0.3 + Math.exp((-2 * step) / end)) * (random() - 0.5) + 0.01 * rank;
  const spread = width > 1 ? 0.05 * random() : 0;
  return [step, (step / 8.4) * 1000, value - spread, value + spread, value, value];
}

function accuracy(rank, step, _width, end) {
  const value = 0.3 + 0.62 * (1 - Math.exp((-4 * step) / end)) + 0.02 * (random() - 0.5);
  return [step, (step / 8.4) * 1000, value, value, value, value];
}

const rate = (_rank, step, _width, end) => {
  const value = 8e-4 * 0.5 * (1 + Math.cos((Math.PI * step) / (2 * end)));
  return [step, (step / 8.4) * 1000, value, value, value, value];
};

function meanOf(lines) {
  return lines[0].map((point, i) => {
    const at = lines.map((line) => line[i]);
    const average = (column) => at.reduce((sum, p) => sum + p[column], 0) / at.length;
    return [point[0], point[1], average(2), average(3), average(4), average(5)];
  });
}

/** A whole Curves message: `metrics` maps names to [maker, distance of steps]. */
export function curves(metrics, ranks, { run_id = "r1", end = 1204, width = 1, hurt } = {}) {
  seed = run_id === "r1" ? 1 : run_id.length * 977 + run_id.charCodeAt(1) * 31;
  const series = [];
  const parts = [];
  for (const [name, [make, distance]] of Object.entries(metrics)) {
    const lines = [];
    for (let rank = 0; rank < ranks; rank += 1) {
      const points = [];
      for (let step = 0; step <= end; step += distance) points.push(make(rank, step, width, end));
      hurt?.(name, rank, points);
      lines.push(points);
    }
    const add = (rank, points) => {
      series.push({ name, rank, start: 0, count: points.length });
      parts.push(columns(points));
    };
    if (run_id === "r1") lines.forEach((points, rank) => add(rank, points));
    add(null, meanOf(lines));
  }
  return [{ kind: "curves", run_id, names: Object.keys(metrics), whole: true, series }, joined(parts)];
}

const TWO = { "train/loss": [loss, 12], "val/accuracy": [accuracy, 98] };

function rankRow(rank, more = {}) {
  return {
    rank, state: "running", step: 1204, step_ms: 119, wait_ms: 29 + (rank % 3), slowest: false, device: `cuda:${rank}`,
    cpu_percent: 37 + rank, gpu_percent: 97 - (rank % 3), memory_bytes: 11.4 * 2 ** 30, memory_limit_bytes: 24 * 2 ** 30,
    gpu_memory_bytes: 11.4 * 2 ** 30, gpu_memory_limit_bytes: 24 * 2 ** 30, last_line: `loss 0.39${rank % 10}, lr 8.1e-4`, ...more,
  };
}

export function state(ranks = 4, head = {}, more = {}) {
  const rows = Array.from({ length: ranks }, (_, rank) => rankRow(rank));
  if (ranks > 2) rows[2] = rankRow(2, { slowest: true, step: 1203, wait_ms: 1, cpu_percent: 100, gpu_percent: 61, last_line: "loader read: 41 ms" });
  return {
    kind: "state",
    run: {
      run_id: "r1", name: "vit-s16-imagenette", state: "running", words: "", attempt: 0, attempts: 3, world_size: ranks, backend: "nccl", resumed: "",
      started_ms: START, ended_ms: null, now_ms: START + 143_000, can_stop: true, stopping: "", ...head,
    },
    steps_per_s: 8.4,
    progress: { desc: "Epoch 13 of 30", n: 1204, total: 2940, left_s: 207, fastest: 0, fastest_n: 1204, slowest: ranks > 2 ? 2 : ranks - 1, slowest_n: 1203 },
    ranks: rows,
    faults: [],
    decks: ["val samples", "embedding", "Timeline", "Environment"].map((name, at) => ({ name, automatic: at > 1, ranks: [0, 1, 2, 3], version: 1, size_bytes: 412_000 })),
    notes: [],
    ...more,
  };
}

const SAID = [
  [[0, 1, 2, 3], 120_000, "stdout", "imagenette2: 9,469 images, 98 batches a rank", []],
  [[0, 1, 2, 3], 120_100, "stdout", "epoch 12: start, lr 8.4e-4", [[0, "font-weight:bold;color:var(--qd-a2)"], [8, ""]]],
  [[0], 123_000, "stdout", "checkpoint step 1,100 saved, 264 MB, loop stalled 31 ms", []],
  ...Array.from({ length: 27 }, (_, i) => [[2], 133_000 + i, "stderr", "UserWarning: loader read took 41 ms, median of the other ranks 9 ms", []]),
];
const LINES = {
  kind: "lines", whole: true, left_out: 0, first: 1, gone: [],
  lines: SAID.map(([ranks, ms, stream, text, looks], at) => [at + 1, ranks, START + ms, START + ms, stream, text, looks]),
};

const FAULTS = [
  {
    code: "ValueError", title: "ValueError on rank 1: Expected input batch_size (21) to match target batch_size (24).", detail: "14:26:37, attempt 2, step 1,342",
    ranks: [1], root: true, evidence: [{ label: "Values on rank 1", text: "xb float32 (21, 3, 224, 224), yb int64 (24,)" }],
    traceback: 'Traceback (most recent call last):\n  File "cell [12]", line 14, in train_epoch\n  File "cell [11]", line 9, in train_step\n    loss = F.cross_entropy(model(xb), yb, label_smoothing=0.1)\nValueError: Expected input batch_size (21) to match target batch_size (24).',
  },
  { code: "", title: "Earlier: rank 2 was killed by SIGKILL: by the kernel's out-of-memory killer", detail: "14:26:19, attempt 1, step 1,204", ranks: [2], root: false, traceback: "", evidence: [{ label: "Peak memory", text: "31.9 GiB" }, { label: "Its last output", text: "epoch 3\nloader read took 41 ms" }] },
];

const many = {};
for (const part of ["train/loss", "train/accuracy", "train/grad_norm", "val/loss", "val/accuracy", "lr", "gpu/memory", "gpu/util", "data/wait", "data/read", "opt/scale", "opt/skip", "extra/a", "extra/b"]) {
  many[part] = [part.includes("acc") ? accuracy : part === "lr" ? rate : loss, 24];
}
const four = { "train/loss": [loss, 4], "train/accuracy": [accuracy, 12], lr: [rate, 12], "val/loss": [loss, 98] };

export const scenes = {
  running: () => [[state(), null], curves(TWO, 4), [LINES, null]],
  eight: () => [[state(8), null], curves(four, 8, { width: 4 }), [LINES, null]],
  sixteen: () => [[state(16, { name: "llama-8b, <img src=x onerror=alert(1)>" }), null], curves(TWO, 16), [LINES, null]],
  single: () => [[state(1, { attempts: 1, name: "cell [7]" }, { decks: [], progress: null }), null], curves({ loss: [loss, 12] }, 1), [LINES, null]],
  many: () => [[state(), null], curves(many, 4), [LINES, null]],
  failed: () => [
    [state(4, { state: "failed", attempt: 1, words: "failed at step 1,342: rank 1 raised ValueError", ended_ms: START + 161_000, can_stop: false }, {
      faults: FAULTS, ranks: [0, 1, 2, 3].map((rank) => rankRow(rank, { state: rank === 1 ? "failed" : "released", step_ms: 119, slowest: false })),
    }), null],
    curves(TWO, 4), [LINES, null],
  ],
  succeeded: () => [
    [state(4, { state: "succeeded", words: "succeeded in 5 min 52 s", ended_ms: START + 352_000, can_stop: false }, {
      progress: { desc: "Epoch 30 of 30", n: 2940, total: 2940, left_s: null, fastest: null, fastest_n: 0, slowest: null, slowest_n: 0 },
      ranks: [0, 1, 2, 3].map((rank) => rankRow(rank, { state: "succeeded" })),
    }), null],
    curves(TWO, 4), [LINES, null],
  ],
  decksOnly: () => [[state(2, { state: "succeeded", words: "succeeded in 58 s", ended_ms: START + 58_000, can_stop: false }, { progress: null, ranks: [0, 1].map((rank) => rankRow(rank, { state: "succeeded", step: null, step_ms: null, wait_ms: null })) }), null]],
  starting: () => [[state(4, { state: "starting", started_ms: START }, { steps_per_s: null, progress: null, decks: [], ranks: [0, 1, 2, 3].map((rank) => rankRow(rank, { state: rank < 2 ? "running" : "starting", step: null, step_ms: null, wait_ms: null, last_line: "" })) }), null]],
  nan: () => [
    [state(4, {}, { notes: ["nan since step 812 on rank 1", "inf at step 300 on rank 3"] }), null],
    curves(TWO, 4, { hurt: (name, rank, points) => points.forEach((p) => {
      if (name === "train/loss" && ((rank === 1 && p[0] >= 812) || (rank === 3 && p[0] === 300))) p.fill(NaN, 2);
    }) }),
    [LINES, null],
  ],
  compare: () => [
    [state(), null], curves(TWO, 4), [LINES, null],
    [{ kind: "runs", runs: ["r2", "s3"].map((run_id, at) => ({ run_id, name: `vit-s16, lr ${at + 2}e-4`, started_ms: START - 3_600_000 * (at + 1) ** 3, state: at ? "stopped" : "succeeded", last: { "train/loss": 0.41 + at / 50 } })) }, null],
  ],
  compared: () => [curves(TWO, 2, { run_id: "r2", end: 1100 }), curves(TWO, 3, { run_id: "s3", end: 800 })],
  /** 8 ranks x 4 metrics of which only the thinned 1,000 points a line arrive. */
  heavy: () => [[state(8), null], curves({ a: [loss, 1], b: [accuracy, 1], c: [loss, 1], d: [loss, 1] }, 8, { end: 1000, width: 128 })],
};
