"""`python -m examples.arena_in_page.build DIR PYODIDE WHEEL...`: a folder for `psyne-mesh serve --web DIR`.

PYODIDE is the folder of Pyodide's package of npm, with `pyodide.mjs` in it; the wheels are those of `msgspec` for Pyodide and
of `attrs`. The package and the arena go into one archive, as they are.
"""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

from examples.arena.world import WALLS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OF_PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")
OURS = ("index.html", "style.css", "page.js", "main.py")
# What a page never imports: other programs of the package.
LEFT_OUT = ("web", "cli", "testing", "simulations", "py.typed")


def build(place: Path, pyodide: Path, wheels: list[Path]) -> Path:
    (place / "pyodide").mkdir(parents=True, exist_ok=True)
    for name in OF_PYODIDE:
        shutil.copyfile(pyodide / name, place / "pyodide" / name)
    for name in OURS:
        shutil.copyfile(HERE / name, place / name)
    for wheel in wheels:
        shutil.copyfile(wheel, place / wheel.name)
    (place / "walls.js").write_text(f"export const WALLS = {json.dumps(WALLS)};\n", encoding="ascii")
    with zipfile.ZipFile(place / "game.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for part in (ROOT / "psyne_mesh", HERE.parent / "arena"):
            for path in sorted(part.rglob("*.py")):
                if path.relative_to(part).parts[0] not in LEFT_OUT:
                    archive.write(path, path.relative_to(ROOT))
    archives = ["game.zip", *(wheel.name for wheel in wheels)]
    (place / "archives.json").write_text(json.dumps(archives), encoding="ascii")
    return place


if __name__ == "__main__":
    target, distribution, *paths = map(Path, sys.argv[1:])
    build(target, distribution, paths)
