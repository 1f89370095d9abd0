// Builds the tests and runs them under node:test. `node test.mjs [NAME...]`: those whose files begin so.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const wanted = process.argv.slice(2);
const names = readdirSync(`${here}test`).filter((name) => name.endsWith(".test.ts"));
const chosen = names.filter((name) => wanted.length === 0 || wanted.some((prefix) => name.startsWith(prefix)));
const place = mkdtempSync(join(here, "node_modules", ".psyne-test-")); // beside the libraries, which tests import, too
try {
  await build({
    absWorkingDir: here,
    entryPoints: chosen.map((name) => `test/${name}`),
    bundle: true,
    packages: "external",
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: "inline",
    outdir: place,
    outExtension: { ".js": ".mjs" },
  });
  const built = readdirSync(place).map((name) => join(place, name));
  const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...built], { stdio: "inherit", cwd: here });
  process.exitCode = status ?? 1;
} finally {
  rmSync(place, { recursive: true, force: true });
}
