"""Fuzz one reader of outside bytes, guided by coverage (atheris, that is libFuzzer).

    python -m tests.fuzz association --seconds 60
    python -m tests.fuzz association --input FILE      run one input, to look at a finding
    python -m tests.fuzz --mutated 10000000 --jobs 2   so many mutated inputs over all targets, without atheris (`mass.py`)
    python -m tests.fuzz --write-seeds                 write the seeds of `seeds.py` into the corpus

It begins with the committed corpus. What it finds worth keeping goes to --keep, as does the input of a finding; a finding
ends it with a traceback and an exit code that is not zero.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

INPUT_BYTES_MAX = 4096
SECONDS_PER_INPUT_MAX = 10  # longer is a finding: something loops
MEGABYTES_MAX = 1500


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", type=Path, help="a directory; without it a new temporary one")
    parser.add_argument("--input", type=Path)
    parser.add_argument("--write-seeds", action="store_true")
    parser.add_argument("--mutated", type=int, help="how many inputs, over all targets")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.write_seeds:
        from tests.fuzz.seeds import write_seeds

        write_seeds()
        return
    if chosen.input is not None:
        from tests.fuzz.targets import TARGETS

        TARGETS[chosen.target](chosen.input.read_bytes())
        return
    keep = chosen.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    if chosen.mutated is not None:
        from tests.fuzz.mass import run_all

        keep.mkdir(parents=True, exist_ok=True)
        sys.exit(run_all(chosen.mutated, chosen.seed, chosen.jobs, keep) > 0)
    fuzz(chosen.target, chosen.seconds, keep)


def fuzz(target: str, seconds: int, keep: Path) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["psyne_mesh", "aioice.stun"]):
        from tests.fuzz.targets import CORPUS, TARGETS

    if target not in TARGETS:
        sys.exit(f"no target {target!r}; there are {', '.join(TARGETS)}")
    found = keep / target
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={SECONDS_PER_INPUT_MAX}",
        f"-rss_limit_mb={MEGABYTES_MAX}",
        f"-artifact_prefix={found}/finding-",
        "-use_value_profile=1",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / target)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
