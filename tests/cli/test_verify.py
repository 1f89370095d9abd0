"""`psyne-mesh verify`: what a file of evidence proves, in words."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from psyne_mesh.cli.verify import run_verify
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.evidence import encode_evidence
from psyne_mesh.game.transcript import Scribe, digest_of
from tests.game.test_transcript import IDENTITIES, ROOM, file_of


def said(paths: list[Path]) -> tuple[int, str]:
    out = StringIO()
    status = run_verify(paths, Console(file=out, soft_wrap=True, width=500))
    return status, out.getvalue()


def test_it_says_what_is_proved_by_whom_against_whom_and_what_not(tmp_path: Path) -> None:
    path = tmp_path / "one"
    ada, bob = IDENTITIES[0].peer_id, IDENTITIES[1].peer_id
    names = {str(ada): "ada", str(bob): "[red]bob\x1b"}
    path.write_bytes(encode_evidence(file_of(1, names=names), IDENTITIES[1]))
    status, text = said([path])
    assert status == 1
    assert f"ada ({ada.short}) signed Move(7, 500.0) in 'moves'" in text
    assert f"ada ({ada.short}) broke within: x is 500, outside 0 to 10 (says [red]bob" in text
    assert "which it has not signed" in text
    assert f"of ada ({ada.short}): 1 messages that it signed, 0" in text
    assert "when a message came" in text
    assert "\x1b" not in text


def test_nothing_is_proved_by_one_half_and_a_lie_by_both(tmp_path: Path) -> None:
    paths = []
    for number, message in ((1, b"to ada"), (2, b"to bob")):
        statement = Scribe(IDENTITIES[0], ROOM, 1).sign("moves", 0, [digest_of(message)])
        evidence = file_of(number, statements=[statement], messages=[], accusations=[])
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(encode_evidence(evidence, IDENTITIES[number]))
    assert said(paths[:1])[0] == 0
    assert "nothing is proved" in said(paths[:1])[1]
    status, text = said(paths)
    assert status == 1
    assert "signed two different records of span 0 of 'moves'" in text


@pytest.mark.parametrize("content", [b"", b"psyne-mesh evidence 1\nshort", b"x" * 100])
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig, match="evidence"):
        run_verify([path])
    with pytest.raises(InvalidConfig, match="cannot be read"):
        run_verify([tmp_path / "nothing"])
