// Bundles the *.test.ts of the workspace's packages and hands it to node's own test runner, with the test of the layers.
// `npm run test -- words curves` runs those whose names begin so.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const only = process.argv.slice(2);
const wanted = (path) => only.length === 0 || only.some((start) => basename(path).startsWith(start));
const { workspaces } = JSON.parse(readFileSync("package.json", "utf8"));
const folders = workspaces.map((name) => join(name, "test"));
const paths = folders.filter(existsSync).flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
const entryPoints = paths.filter((path) => path.endsWith(".test.ts") && wanted(path));
const outdir = mkdtempSync(join(tmpdir(), "qd-view-tests-"));
try {
  await build({
    entryPoints,
    outbase: "packages",
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    loader: { ".css": "text" },
    logLevel: "warning",
  });
  const built = entryPoints.map((path) => join(outdir, path.slice("packages/".length).replace(/\.ts$/, ".mjs")));
  const files = [...built, "layers.test.mjs"].filter(wanted);
  const run = spawnSync(process.execPath, ["--test", "--test-timeout=20000", ...files], { stdio: "inherit" });
  process.exitCode = run.status ?? 1;
} finally {
  rmSync(outdir, { recursive: true, force: true });
}
