// Imports point down: widget -> views -> protocol, a room of the views to the basics, and nothing in a circle.
import assert from "node:assert/strict";
import { build } from "esbuild";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

/** From the top down; a package imports only those below it. */
const LAYERS = ["widget", "views", "protocol"];

/** Imports of types leave no trace in a bundle. Here each import counts, and nothing of it but where it leads. */
const typesToo = {
  name: "types-too",
  setup(on) {
    on.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const text = readFileSync(path, "utf8");
      return { contents: text.replace(/^(import|export) [^;"]*? from (?=")/gm, "import "), loader: "ts" };
    });
  },
};

/** Packages of others need not be installed here. */
const othersOutside = {
  name: "others-outside",
  setup(on) {
    on.onResolve({ filter: /^[^.]/ }, ({ path, kind }) => {
      return kind === "entry-point" || path.startsWith("@quarterdeck/") ? null : { path, external: true };
    });
  },
};

/** Every source below `root`, with the paths that it imports; a package of others' by its name. */
async function importsOf(root) {
  const sources = readdirSync(root, { recursive: true }).filter((path) => /^[^/]+\/src\/.*\.ts$/.test(path) && !path.endsWith(".d.ts"));
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: sources,
    outdir: "out",
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    loader: { ".css": "text" },
    plugins: [othersOutside, typesToo],
    logLevel: "silent",
  });
  const files = Object.entries(metafile.inputs);
  return new Map(files.map(([path, { imports }]) => [path, imports.map((one) => one.path)]));
}

const packageOf = (path) => path.split("/")[0];

/** "views/run" of "views/src/run/view.ts"; null of a file that lies in no room. */
function roomOf(path) {
  const parts = path.split("/");
  return parts.length > 3 ? `${parts[0]}/${parts[2]}` : null;
}

/** The first circle that is found, as a list that ends where it begins; null if there is none. */
function circle(graph) {
  const done = new Set();
  const walk = (node, way) => {
    if (way.includes(node)) return [...way.slice(way.indexOf(node)), node];
    if (done.has(node)) return null;
    for (const next of graph.get(node) ?? []) {
      const found = walk(next, [...way, node]);
      if (found) return found;
    }
    done.add(node);
    return null;
  };
  for (const node of [...graph.keys()].sort()) {
    const found = walk(node, []);
    if (found) return found;
  }
  return null;
}

function rooms(imports) {
  const graph = new Map();
  for (const [path, targets] of imports) {
    const [room, into] = [roomOf(path), targets.map(roomOf)];
    if (room) graph.set(room, [...(graph.get(room) ?? []), ...into.filter((other) => other && other !== room)]);
  }
  return graph;
}

/** What is wrong, in words. */
function faults(imports, declared) {
  const found = [];
  for (const [path, targets] of imports) {
    const own = packageOf(path);
    for (const target of targets) {
      const into = packageOf(target);
      const foreign = target.startsWith("@") ? target.split("/").slice(0, 2).join("/") : into;
      const ours = LAYERS.includes(into);
      const name = ours ? `@quarterdeck/${into}` : foreign;
      if (ours && LAYERS.indexOf(into) < LAYERS.indexOf(own)) found.push(`${path} imports upward: ${target}`);
      else if (into !== own && !declared(own).includes(name)) found.push(`${path} imports ${name}, which packages/${own}/package.json does not name`);
    }
  }
  for (const graph of [imports, rooms(imports)]) {
    const round = circle(graph);
    if (round) found.push(`a circle: ${round.join(" -> ")}`);
  }
  return found;
}

const PACKAGES = fileURLToPath(new URL("packages", import.meta.url));
const named = (name) => Object.keys(JSON.parse(readFileSync(join(PACKAGES, name, "package.json"), "utf8")).devDependencies ?? {});

test("imports point down, and never in a circle", async () => {
  const imports = await importsOf(PACKAGES);
  assert.ok(imports.size > 50, `only ${imports.size} files were seen`);
  assert.deepEqual(faults(imports, named), []);
});

test("every package has a layer", () => {
  assert.deepEqual(readdirSync(PACKAGES).filter((name) => existsSync(join(PACKAGES, name, "package.json"))).sort(), [...LAYERS].sort());
});

/** What is wrong with packages of these files; nothing may be imported that is not named. */
async function faultsIn(files) {
  const root = mkdtempSync(join(tmpdir(), "qd-layers-"));
  try {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return faults(await importsOf(root), () => ["@quarterdeck/views", "@quarterdeck/protocol"]);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

test("this test sees an upward import, though it be of a type", async () => {
  const found = await faultsIn({
    "protocol/src/run.ts": 'import type { A } from "../../views/src/a";\nexport type B = A;\n',
    "views/src/a.ts": "export type A = 1;\n",
  });
  assert.deepEqual(found, ["protocol/src/run.ts imports upward: views/src/a.ts"]);
});

test("this test sees a circle of files, and one of rooms", async () => {
  const files = await faultsIn({
    "views/src/a.ts": 'import type { B } from "./b";\nexport type A = B;\n',
    "views/src/b.ts": 'import { type A } from "./a";\nexport const b: A = 1;\nexport type B = 1;\n',
  });
  assert.deepEqual(files, ["a circle: views/src/a.ts -> views/src/b.ts -> views/src/a.ts"]);
  const between = await faultsIn({
    "views/src/run/a.ts": 'import "../curves/c";\n',
    "views/src/run/b.ts": "",
    "views/src/curves/c.ts": "",
    "views/src/curves/d.ts": 'import "../run/b";\n',
  });
  assert.deepEqual(between, ["a circle: views/curves -> views/run -> views/curves"]);
});

test("this test sees what a package uses without naming it", async () => {
  const found = await faultsIn({ "views/src/a.ts": 'import type { AnyModel } from "@anywidget/types";\nexport type A = AnyModel;\n' });
  assert.deepEqual(found, ["views/src/a.ts imports @anywidget/types, which packages/views/package.json does not name"]);
});
