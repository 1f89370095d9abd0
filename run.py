#!/usr/bin/env python3
"""One door for people who have just cloned this: makes a virtual environment, installs into it, runs what you ask.

    python3 run.py demo            players in a room, on this machine, in a minute
    python3 run.py play            a game to play: an arena with three bots, in a window
    python3 run.py test            the test suite (arguments go to pytest; --slow adds the long tests; -n 0: one by one)
    python3 run.py check           ruff and mypy
    python3 run.py bench           benchmarks against other stacks
    python3 run.py lab             the network lab (Linux: namespaces, NATs, coturn)
    python3 run.py WORD ...        any other word goes to the psyne-mesh command line: serve, join, sim, doctor, --help

    python3 run.py --compiled [WORD ...]
        The same with the hot modules compiled to C, in an environment of its own, .venv-compiled. Needs a C compiler, and a
        minute or two when a source has changed. Without a word it only builds; `bench` measures both builds side by side.

    python3 run.py wheel           a compiled wheel for this Python, into dist/, tested in an environment that has nothing else

Standard library only. Running it again is cheap: it installs anew only when pyproject.toml or the extras change, and the
compiled build when a source does.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
COMPILED = ROOT / ".venv-compiled"
WHEEL_PARTS = ("psyne_mesh", "pyproject.toml", "README.md", "LICENSE")
EXTRAS = {"test": {"dev"}, "check": {"dev"}, "lab": {"dev"}, "bench": {"bench"}, "sim": {"sim"}, "play": {"play"}}
IMPLIED = {"dev": ("cli", "sim", "test"), "sim": ("cli",), "bench": ("cli",)}  # as pyproject.toml has them
OLDEST = (3, 11)


def main(words: list[str]) -> int:
    if sys.version_info < OLDEST:
        return fail(f"Python {'.'.join(map(str, OLDEST))} or newer is needed; this is {sys.version.split()[0]}")
    compiled = words[:1] == ["--compiled"]
    if compiled:
        words = words[1:]
    if words[:1] in (["-h"], ["--help"]) or not (words or compiled):
        print(__doc__)
        return 0
    word, *rest = words or ["build"]
    try:
        if word == "wheel":
            return tested_wheel()
        if compiled:
            python = compiled_environment(EXTRAS.get(word, {"cli"}) - {"bench"})
        if not compiled or word == "bench":  # the runner of the benchmarks stands beside what it measures
            python = environment(EXTRAS.get(word, {"cli"}))
    except (subprocess.CalledProcessError, OSError) as error:
        return fail(f"the environment could not be made: {error}")
    if compiled and word == "build":
        print(f"run.py: the compiled build is in {COMPILED}")
        return 0
    if compiled and word != "bench":
        # The working directory holds the sources as well: they must not come before what is installed.
        os.environ |= {"PYTHONSAFEPATH": "1", "PSYNE_COMPILED": "1"}
    if word == "test":
        return run(python, "-m", "pytest", *(["--import-mode=append"] if compiled else []), *pytest_arguments(rest))
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
        return [*side_by_side(rest), *(argument for argument in rest if argument != "--slow")]
    return [*side_by_side(rest), *(rest if "-m" in rest else ["-m", "not slow", *rest])]


def side_by_side(rest: list[str]) -> list[str]:
    """Whole suites use two processors or more; who names a test wants its output, not the start of workers."""
    named = any(
        ROOT.joinpath(argument.partition("::")[0]).exists() for argument in rest if not argument.startswith("-")
    )
    if named or "-n" in rest or (os.cpu_count() or 1) < 2:
        return []
    return ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadgroup"]


def environment(extras: set[str]) -> str:
    """The environment's python, with this project, editable, and the extras installed into it."""
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    wanted = missing_extras(ENVIRONMENT, project, extras)
    if wanted is not None:
        make(ENVIRONMENT)
        what = f".[{','.join(wanted)}]" if wanted else "."
        print(f"run.py: installing {what} (the first time takes a minute)", file=sys.stderr, flush=True)
        pip_install(ENVIRONMENT, "--editable", what)
        stamp(ENVIRONMENT).write_text("\n".join([project, *wanted]), encoding="utf-8")
    return str(python_of(ENVIRONMENT))


def compiled_environment(extras: set[str]) -> str:
    """The same with a compiled wheel of the sources as they are now. It is built from a copy: the compiler works in place,
    and a compiled module that stays beside its source would be taken instead of it."""
    project = hash_of_sources()
    wanted = missing_extras(COMPILED, project, extras)
    if wanted is not None:
        demand_compiler()
        make(COMPILED)
        print("run.py: compiling and installing (a minute or two)", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as place:
            copy_sources(place)
            what = f"{place}[{','.join(wanted)}]" if wanted else place
            pip_install(COMPILED, what, HATCH_BUILD_HOOK_ENABLE_MYPYC="1")
        # Tests and benchmarks are not in the wheel. A line in a .pth file comes after what is installed.
        packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(COMPILED), "platbase": str(COMPILED)}))
        (packages / "psyne-mesh-repository.pth").write_text(f"{ROOT}\n", encoding="utf-8")
        stamp(COMPILED).write_text("\n".join([project, *wanted]), encoding="utf-8")
    return str(python_of(COMPILED))


def copy_sources(place: str) -> None:
    for part in map(ROOT.joinpath, WHEEL_PARTS):
        copy = shutil.copytree if part.is_dir() else shutil.copy
        copy(part, Path(place, part.name))


def tested_wheel() -> int:
    """What cibuildwheel does for each Python of each system (`tool.cibuildwheel` in pyproject.toml), for this one."""
    import tomllib

    demand_compiler()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    with tempfile.TemporaryDirectory() as directory:
        place, sources = Path(directory, "environment"), Path(directory, "sources")
        sources.mkdir()
        copy_sources(str(sources))
        make(place)
        print("run.py: compiling (some minutes)", file=sys.stderr, flush=True)
        pip = [str(python_of(place)), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(Path(directory, "wheel")), str(sources)]
        subprocess.run(build, check=True, env=os.environ | settings["environment"])
        (wheel,) = Path(directory, "wheel").glob("*.whl")
        subprocess.run([*pip, "install", f"{wheel}[{','.join(settings['test-extras'])}]"], check=True)
        command = settings["test-command"].format(project=ROOT).split()
        environment = os.environ | settings["test-environment"]
        code = run(str(python_of(place)), *command[1:], environment=environment)
        if code == 0:
            (ROOT / "dist").mkdir(exist_ok=True)
            print(f"run.py: tested: {shutil.copy(wheel, ROOT / 'dist')}")
    return code


def hash_of_sources() -> str:
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for path in sorted(ROOT.glob("psyne_mesh/**/*.py")):
        project.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return project.hexdigest()


def missing_extras(place: Path, project: str, extras: set[str]) -> list[str] | None:
    """What to install, of `project` as it is now; `None` when all is there."""
    lines = stamp(place).read_text(encoding="utf-8").split() if stamp(place).exists() else []
    known = set(lines[1:]) if lines[:1] == [project] else set()
    known |= {implied for extra in known for implied in IMPLIED.get(extra, ())}
    if python_of(place).exists() and lines[:1] == [project] and extras <= known:
        return None
    return sorted(extras | known)


def stamp(place: Path) -> Path:
    return place / "psyne-mesh-installed"


def python_of(place: Path) -> Path:
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make(place: Path) -> None:
    if python_of(place).exists():
        return
    print(f"run.py: making a virtual environment in {place}", file=sys.stderr, flush=True)
    try:
        venv.create(place, with_pip=True, clear=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"{error}; on Debian and Ubuntu: apt-get install python3-venv") from error


def demand_compiler() -> None:
    if os.name == "nt":  # setuptools finds Visual C++ by itself, and says so when it cannot
        return
    if not any(map(shutil.which, [os.environ.get("CC", "cc"), "gcc", "clang"])):
        raise OSError("there is no C compiler; on Debian and Ubuntu: apt-get install gcc libc6-dev")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise OSError("Python's headers are not there; on Debian and Ubuntu: apt-get install python3-dev")


def pip_install(place: Path, *what: str, **variables: str) -> None:
    command = [str(python_of(place)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | variables)


def run(*command: str, environment: dict[str, str] | None = None) -> int:
    try:
        return subprocess.run(command, cwd=ROOT, check=False, env=environment).returncode
    except KeyboardInterrupt:
        return 130


def fail(message: str) -> int:
    print(f"run.py: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
