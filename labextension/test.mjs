// Bundles every test/*.test.ts and hands it to node's own test runner.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const only = process.argv.slice(2);
const names = readdirSync("test").filter((name) => name.endsWith(".test.ts") && (only.length === 0 || only.some((o) => name.startsWith(o))));
const outdir = mkdtempSync(join(tmpdir(), "qd-view-tests-"));
try {
  await build({
    entryPoints: names.map((name) => join("test", name)),
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    loader: { ".css": "text" },
    logLevel: "warning",
  });
  const files = readdirSync(outdir).map((name) => join(outdir, name));
  const run = spawnSync(process.execPath, ["--test", "--test-timeout=20000", ...files], { stdio: "inherit" });
  process.exitCode = run.status ?? 1;
} finally {
  rmSync(outdir, { recursive: true, force: true });
}
