// What `psyne-mesh serve` hands out at /app/: the member, the arena, and what makes the page installable.
// `node arena/build.mjs [OUTDIR]`, psyne_mesh/web if left out.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const outdir = process.argv[2] ?? fileURLToPath(new URL("../../psyne_mesh/web/", import.meta.url));
mkdirSync(outdir, { recursive: true });
const js = fileURLToPath(new URL("..", import.meta.url));
const { status } = spawnSync(process.execPath, ["build.mjs", outdir], { cwd: js, stdio: ["ignore", "ignore", "inherit"] });
if (status !== 0) process.exit(status ?? 1);
await build({
  absWorkingDir: js,
  entryPoints: { app: "arena/main.ts", "net-graph": "net-graph/net-graph.ts" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox115", "safari16.4"],
  legalComments: "none",
  outdir,
  tsconfigRaw: {}, // "psyne-mesh" stays a file of its own, which games in other folders import, too
  alias: { "psyne-mesh": "./psyne-mesh.js" },
  external: ["./psyne-mesh.js"],
  plugins: [{
    name: "elements", // the element defines itself, which is a side effect, whatever the package says of the member
    setup: (made) => made.onResolve({ filter: /\/net-graph\.ts$/ }, ({ path, resolveDir }) => ({ path: resolve(resolveDir, path), sideEffects: true })),
  }],
});
const copied = ["index.html", "style.css", "manifest.webmanifest", "icon-192.png", "icon-512.png"];
for (const name of copied) copyFileSync(`${here}${name}`, `${outdir}/${name}`);
const hash = createHash("sha256");
const kept = [...copied, "app.js", "psyne-mesh.js", "psyne-mesh-tick.js"];
for (const name of kept.sort()) hash.update(readFileSync(`${outdir}/${name}`));
const worker = readFileSync(`${here}sw.js`, "utf8").replace("__VERSION__", hash.digest("hex").slice(0, 16));
writeFileSync(`${outdir}/sw.js`, worker);
