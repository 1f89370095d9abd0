// Python 3.14 as a page has it, with this repository at /src: `node run.mjs ROOT FILE.py [ARGUMENT...]` runs a file there.
// Libraries are the wheels beside this file: Pyodide's own package has none.
import { readdirSync, readFileSync } from "node:fs";

process.on("uncaughtException", (error) => {
  console.error(String(error.message).slice(-4000)); // without the megabyte of source that Node.js shows
  process.exit(1);
});
const { loadPyodide } = await import("pyodide");
const [root, file, ...words] = process.argv.slice(2);
const python = await loadPyodide({ args: [file, ...words] });
const site = python.runPython("import site; site.getsitepackages()[0]");
const wheels = new URL("wheels/", import.meta.url);
for (const name of readdirSync(wheels)) python.unpackArchive(new Uint8Array(readFileSync(new URL(name, wheels))), "wheel", { extractDir: site });
for (const part of ["psyne_mesh", "tests", "examples"]) { // not the whole of it: its folder js would hide Pyodide's module of that name
  python.FS.mkdirTree(`/src/${part}`);
  python.FS.mount(python.FS.filesystems.NODEFS, { root: `${root}/${part}` }, `/src/${part}`);
}
python.runPython(`import sys; sys.path.insert(0, "/src"); sys.argv = ${JSON.stringify([file, ...words])}`);
await python.runPythonAsync(readFileSync(`${root}/${file}`, "utf8"), { globals: python.toPy({ __name__: "__main__" }) });
