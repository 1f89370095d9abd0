"""Which modules of the compiled build earn their place in a game's tick: one build of all, one without each group, by turns.

Run: python -m benchmarks.compiled [--groups dtls,ice] [--among dtls,ice,stack] [--also FILE ...] [--builds DIRECTORY]

The work is that of `benchmarks.tick`: CPU of one position in a room. A group's gain is what its own lines cost pure against
what they cost compiled: pure is their share of a profile of the pure build; what the build without the group costs more than
the whole one is the difference. `--also` tries more modules: a build with them against that of the list. Builds stay in
`--builds` and are made anew only where sources or list have changed; each takes some minutes of a core. The simulator and what
games load by themselves are not in this work, and in none of these builds: they have the works `gossip` and `shared_objects`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

from benchmarks.tick import Child

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "sctp": ("/psyne_mesh/webrtc/sctp/",),
    "gossip": ("/psyne_mesh/gossip/",),
    "dtls": ("/psyne_mesh/webrtc/dtls/",),
    "ice": ("/psyne_mesh/webrtc/ice/",),
    "stack": tuple(
        f"/psyne_mesh/webrtc/{name}.py" for name in ("stack", "channel", "express", "ladder", "link", "inbox")
    ),
}
NOT_IN_THIS_WORK = ("/psyne_mesh/simulations/", "/psyne_mesh/game/")
GAIN_LEAST = 1.2


def listed(among: list[str]) -> list[str]:
    """The patterns of the compiled build, without those that this work does not run, and of the groups only these."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    include: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["include"]
    others = tuple(start for group, starts in GROUPS.items() if group not in among for start in starts)
    return [pattern for pattern in include if not pattern.startswith(NOT_IN_THIS_WORK + others)]


def hash_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(ROOT.glob("psyne_mesh/**/*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def build(place: Path, include: list[str]) -> None:
    """A wheel with these modules compiled, unpacked into `place`."""
    stamp = place / "stamp"
    wanted = "\n".join([hash_of_sources(), sys.version, *include])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(place, ignore_errors=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        sources, wheels = Path(directory, "sources"), Path(directory, "wheels")
        shutil.copytree(ROOT / "psyne_mesh", sources / "psyne_mesh", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("README.md", "LICENSE"):
            shutil.copy(ROOT / name, sources)
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        head, hook = project.split("[tool.hatch.build.targets.wheel.hooks.mypyc]", 1)
        hook = re.sub(r"include = \[.*?\n\]", f"include = {json.dumps(include)}", hook, count=1, flags=re.DOTALL)
        (sources / "pyproject.toml").write_text(f"{head}[tool.hatch.build.targets.wheel.hooks.mypyc]{hook}")
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"]
        environment = os.environ | {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"}
        subprocess.run([*pip, "--wheel-dir", str(wheels), str(sources)], check=True, env=environment)
        (wheel,) = wheels.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(place)
    stamp.write_text(wanted)
    print(f"built {place.name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def share_of_files(arguments: argparse.Namespace) -> dict[str, float]:
    """Of the samples of the pure build in this work, by file, as patterns name it."""
    child = Child(str(ROOT), argparse.Namespace(**vars(arguments) | {"shares": True}))
    for _ in range(arguments.segments):
        child.measure()
    counts: dict[str, int] = json.loads(child.last_words())
    total = sum(counts.values())
    return {path.removeprefix(str(ROOT)): count / total for path, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--among", default=",".join(GROUPS), help="what is compiled at all; all groups, unless told")
    parser.add_argument("--also", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--builds", type=Path, default=Path(tempfile.gettempdir(), "psyne-mesh-builds"))
    parser.add_argument("--players", type=int, default=16)
    parser.add_argument("--segments", type=int, default=9)
    parser.add_argument("--bare", action="store_true", help="peers without rooms: gossip's time is not in it")
    parser.add_argument("--build-only", action="store_true")
    arguments = parser.parse_args()
    arguments.callback = arguments.profile = False
    everything = listed(arguments.among.split(","))
    lists = {"whole": everything}
    for name in filter(None, arguments.groups.split(",")):
        lists[f"without {name}"] = [one for one in everything if not one.startswith(GROUPS[name])]
    if arguments.also:
        lists["with more"] = [*everything, *(f"/{path}" for path in arguments.also)]
    for name, include in lists.items():
        build(arguments.builds / name.replace(" ", "-"), include)
    if arguments.build_only:
        return
    shares = share_of_files(arguments)
    children = {"pure": Child(str(ROOT), arguments)}
    children |= {name: Child(str(arguments.builds / name.replace(" ", "-")), arguments) for name in lists}
    for _ in range(arguments.segments):
        for child in children.values():
            child.measure()
    turns = {name: child.figures for name, child in children.items()}
    for child in children.values():
        child.end()

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(turns[one], turns[other], strict=True))

    pure, whole = statistics.median(turns["pure"]), statistics.median(turns["whole"])
    print(f"pure {pure:.1f} us a position, whole list {whole:.1f}, pure / whole {ratio('pure', 'whole'):.2f}\n")
    print("| group | pure, us | compiled, us | gain | the whole list without it |\n|---|---|---|---|---|")
    for name in filter(None, arguments.groups.split(",")):
        own = pure * sum(share for path, share in shares.items() if path.startswith(GROUPS[name]))
        more = ratio(f"without {name}", "whole")
        saved = (more - 1) * whole
        gain = f"{own / (own - saved):.2f}" if own > saved else "more than its own lines"
        few = " **leaves**" if own > saved and own / (own - saved) < GAIN_LEAST else ""
        print(f"| {name} | {own:.1f} | {max(0.0, own - saved):.1f} | {gain}{few} | x {more:.3f} |")
    if arguments.also:
        own = pure * sum(shares.get(f"/{path}", 0.0) for path in arguments.also)
        less = ratio("with more", "whole")
        saved = (1 - less) * whole
        gain = f"{own / (own - saved):.2f}" if own > saved else "all"
        print(f"| {', '.join(arguments.also)} | {own:.1f} | {own - saved:.1f} | {gain} | with it x {less:.3f} |")
    outside = {path: share for path, share in shares.items() if path.startswith("/psyne_mesh/")}
    print("\nOf the pure build's CPU, by file:")
    for path, share in sorted(outside.items(), key=lambda item: -item[1])[:25]:
        print(f"{100 * share:5.1f} %  {path}")


if __name__ == "__main__":
    main()
