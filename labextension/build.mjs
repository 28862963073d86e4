// Bundles packages/widget into the one file that the widget ships. The same sources always give the same bytes.
import { build } from "esbuild";

const outfile = process.argv[2] ?? "../src/quarterdeck/views/static/run_view.js";
await build({
  entryPoints: ["packages/widget/src/index.ts"],
  outfile,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  legalComments: "inline",
  loader: { ".css": "text" },
  logLevel: "warning",
});
