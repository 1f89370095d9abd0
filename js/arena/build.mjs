// What `psyne-mesh serve` hands out at /app/: the member, the arena, and what makes the page installable.
// `node arena/build.mjs [OUTDIR]`, psyne_mesh/web if left out.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const outdir = process.argv[2] ?? fileURLToPath(new URL("../../psyne_mesh/web/", import.meta.url));
mkdirSync(outdir, { recursive: true });
const common = {
  absWorkingDir: fileURLToPath(new URL("..", import.meta.url)),
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox115", "safari16.4"],
  legalComments: "none",
  outdir,
};
await build({ ...common, entryPoints: { "psyne-mesh": "src/index.ts", "psyne-mesh-tick": "src/tick.ts" } });
await build({
  ...common,
  entryPoints: { app: "arena/main.ts", "net-graph": "net-graph/net-graph.ts" },
  ignoreAnnotations: true, // the element defines itself, which is a side effect
  tsconfigRaw: {}, // "psyne-mesh" stays a file of its own, which games in other folders import, too
  alias: { "psyne-mesh": "./psyne-mesh.js" },
  external: ["./psyne-mesh.js"],
});
const copied = ["index.html", "style.css", "manifest.webmanifest", "icon-192.png", "icon-512.png"];
for (const name of copied) copyFileSync(`${here}${name}`, `${outdir}/${name}`);
const hash = createHash("sha256");
for (const name of [...copied, "app.js", "psyne-mesh.js", "psyne-mesh-tick.js"].sort()) hash.update(readFileSync(`${outdir}/${name}`));
const worker = readFileSync(`${here}sw.js`, "utf8").replace("__VERSION__", hash.digest("hex").slice(0, 16));
writeFileSync(`${outdir}/sw.js`, worker);
