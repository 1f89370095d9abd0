"""`psyne-mesh verify FILE ...`: what files of evidence prove, by whom against whom, and what they do not."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from psyne_mesh.cli.terminal import plain
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.game.evidence import FILE_BYTES_MAX, Evidence, Judgement, evidence_untrusted, judge
from psyne_mesh.identity import PeerId


def run_verify(paths: list[Path], console: Console | None = None) -> int:
    """The exit status: 1 if somebody is proved to have told two stories or to stand alone, or broke a rule by what it signed;
    0 if nothing is proved. `InvalidConfig` for what is no file of evidence."""
    console = console or Console(soft_wrap=True)
    found = judge([_read(path) for path in paths])
    writers = ", ".join(_who(writer, found) for writer in found.writers)
    console.print(f"evidence from room [bold]{plain(found.room_name)}[/bold], written by {writers}")
    proved = [finding for finding in found.findings if finding.proved]
    claimed = [finding for finding in found.findings if not finding.proved]
    console.print("[bold]proved[/bold], by the accused's own signatures:" if proved else "nothing is proved")
    for finding in proved:
        console.print(f"  [red]{_who(finding.against, found)}[/red] {plain(finding.what)}")
    if claimed:
        console.print("[bold]claimed[/bold], on the word of who wrote the file:")
    for finding in claimed:
        by = f" (says {_who(finding.by, found)})" if finding.by is not None else ""
        console.print(f"  {_who(finding.against, found)} {plain(finding.what)}{by}")
    for player in sorted(found.signed.keys() | found.unsigned.keys()):
        signed, unsigned = found.signed[player], found.unsigned[player]
        console.print(
            f"  of {_who(player, found)}: {signed} messages that it signed, {unsigned} that it did not, or not yet"
        )
    console.print("not shown by any such file:")
    for note in found.notes:
        console.print(f"  {plain(note)}")
    return 1 if proved else 0


def _read(path: Path) -> Evidence:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        return evidence_untrusted(data)[0]
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror or error}") from error
    except ProtocolError as error:
        raise InvalidConfig(f"{path}: {error}") from error


def _who(player: PeerId, found: Judgement) -> str:
    name = found.names.get(player)
    return f"{plain(name)} ({player.short})" if name else player.short
