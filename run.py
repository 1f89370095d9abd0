#!/usr/bin/env python3
"""One door for people who have just cloned this: makes a virtual environment, installs into it, runs what you ask.

    python3 run.py demo            players in a room, on this machine, in a minute
    python3 run.py test            the test suite (arguments go to pytest; --slow adds the long tests)
    python3 run.py check           ruff and mypy
    python3 run.py bench           benchmarks against other stacks
    python3 run.py lab             the network lab (Linux: namespaces, NATs, coturn)
    python3 run.py WORD ...        any other word goes to the psyne-mesh command line: serve, join, sim, doctor, --help

Standard library only. Running it again is cheap: it installs anew only when pyproject.toml or the extras change.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
EXTRAS = {"test": {"test"}, "check": {"test"}, "lab": {"test"}, "bench": {"bench"}, "sim": {"sim"}}
OLDEST = (3, 11)


def main(words: list[str]) -> int:
    if sys.version_info < OLDEST:
        return fail(f"Python {'.'.join(map(str, OLDEST))} or newer is needed; this is {sys.version.split()[0]}")
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    word, *rest = words
    try:
        python = environment(EXTRAS.get(word, set()))
    except (subprocess.CalledProcessError, OSError) as error:
        return fail(f"the environment could not be made: {error}")
    if word == "test":
        return run(python, "-m", "pytest", *pytest_arguments(rest))
    if word == "check":
        return (
            run(python, "-m", "ruff", "check", ".")
            or run(python, "-m", "ruff", "format", "--check", ".")
            or run(python, "-m", "mypy")
        )
    if word == "bench":
        return run(python, "-m", "benchmarks", *rest)
    if word == "lab":
        return run(python, "-m", "tests.lab", *rest)
    return run(python, "-m", "psyne_mesh.cli", word, *rest)


def pytest_arguments(rest: list[str]) -> list[str]:
    if "--slow" in rest:
        return [argument for argument in rest if argument != "--slow"]
    return rest if "-m" in rest else ["-m", "not slow", *rest]


def environment(extras: set[str]) -> str:
    """The environment's python, with this project and the extras installed into it."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = ENVIRONMENT / "psyne-mesh-installed"
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    lines = stamp.read_text(encoding="utf-8").split() if stamp.exists() else []
    known = set(lines[1:]) if lines[:1] == [project] else set()
    if python.exists() and lines[:1] == [project] and extras <= known:
        return str(python)
    wanted = sorted(extras | known)
    if not python.exists():
        print(f"run.py: making a virtual environment in {ENVIRONMENT}", file=sys.stderr, flush=True)
        try:
            venv.create(ENVIRONMENT, with_pip=True, clear=True)
        except subprocess.CalledProcessError as error:
            raise OSError(f"{error}; on Debian and Ubuntu: apt-get install python3-venv") from error
    what = f".[{','.join(wanted)}]" if wanted else "."
    print(f"run.py: installing {what} (the first time takes a minute)", file=sys.stderr, flush=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", what]
    subprocess.run(command, cwd=ROOT, check=True)
    stamp.write_text("\n".join([project, *wanted]), encoding="utf-8")
    return str(python)


def run(*command: str) -> int:
    try:
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:
        return 130


def fail(message: str) -> int:
    print(f"run.py: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
