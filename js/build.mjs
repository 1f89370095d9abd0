// The built file, OUTDIR/psyne-mesh.js: one module, minified, libraries included. `node build.mjs [OUTDIR]`.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const outdir = process.argv[2] ?? `${here}dist`;
await build({
  absWorkingDir: here,
  entryPoints: { "psyne-mesh": "src/index.ts", "psyne-mesh-tick": "src/tick.ts" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox115", "safari16.4"], // of 2023: top-level await, private fields, class static blocks
  legalComments: "none",
  outdir,
});
const built = readFileSync(`${outdir}/psyne-mesh.js`);
console.log(JSON.stringify({ bytes: built.length, gzipped: gzipSync(built, { level: 9 }).length }));
