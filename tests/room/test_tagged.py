"""A message whose class its reader finds by name."""

from __future__ import annotations

import gc

import msgspec
import pytest

from psyne_mesh import Message
from psyne_mesh.errors import ProtocolError
from psyne_mesh.room.messages import kinds_of
from psyne_mesh.room.tagged import decode_tagged_untrusted, encode_tagged
from tests.costs.measures import steps_of


class Question(Message, tag="tagged-question"):
    number: int


class Unsendable(Message, tag="tagged-unsendable"):
    thing: object = None
    odd: type = int


def asked(tag: str, module: str = __name__) -> bytes:
    return msgspec.msgpack.encode([module, tag, msgspec.msgpack.encode([tag, 1])])


def test_it_comes_back_as_what_it_was() -> None:
    assert decode_tagged_untrusted(encode_tagged(Question(7))) == Question(7)


def test_of_two_with_one_name_that_of_the_module_counts() -> None:
    class Elsewhere(Message, tag="tagged-question"):
        number: int

    Elsewhere.__module__ = "elsewhere"
    assert type(decode_tagged_untrusted(asked("tagged-question"))) is Question
    assert type(decode_tagged_untrusted(asked("tagged-question", "elsewhere"))) is Elsewhere
    assert type(decode_tagged_untrusted(asked("tagged-question", "nowhere"))) is Elsewhere


def test_a_class_that_is_gone_is_not_found() -> None:
    class Passing(Message, tag="tagged-passing"):
        number: int

    assert kinds_of("tagged-passing") == [Passing]
    del Passing
    gc.collect()
    assert kinds_of("tagged-passing") == []
    with pytest.raises(ProtocolError, match="no class"):
        decode_tagged_untrusted(asked("tagged-passing"))


def test_a_class_that_cannot_travel_is_no_fault_of_the_reader() -> None:
    with pytest.raises(ProtocolError, match="cannot travel"):
        decode_tagged_untrusted(asked("tagged-unsendable"))


def test_work_does_not_grow_with_the_classes_that_a_program_has() -> None:
    def steps(tag: str) -> int:
        def read() -> None:
            try:
                decode_tagged_untrusted(asked(tag))
            except ProtocolError:
                return

        read()
        return steps_of(read)

    before = steps("tagged-question"), steps("tagged-nobody")
    kept = [type(f"Other{i}", (Message,), {}, tag=f"tagged-other-{i}") for i in range(500)]
    assert (steps("tagged-question"), steps("tagged-nobody")) == before
    assert len(kept) == 500
