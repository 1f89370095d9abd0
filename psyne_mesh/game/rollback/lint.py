"""What in a game's source differs between machines, or between two runs on one: looked for before it is met."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from typing import Any

import msgspec

from psyne_mesh.game.rollback.game import Game

INEXACT = frozenset({
    "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "exp", "exp2",
    "expm1", "log", "log2", "log10", "log1p", "pow", "cbrt", "hypot", "dist", "gamma", "lgamma", "erf", "erfc",
})  # fmt: skip
"""Of `math` and `cmath`: the platform's libm decides their last bits. `+ - * /`, `sqrt`, `floor` and the like are exact."""
CLOCKS = frozenset({"time", "datetime", "trio", "asyncio"})
_READS = frozenset({
    "time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "now", "utcnow",
    "today", "current_time",
})  # fmt: skip
DICE = frozenset({"random", "secrets", "uuid"})


class Finding(msgspec.Struct, frozen=True):
    """`what` in line `line` of `where` (a method or a field of the game; line 0 of a field)."""

    where: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.where}{f', line {self.line}' if self.line else ''}: {self.what}"


def lint(kind: type[Game]) -> list[Finding]:
    """What is likely to make machines differ, in the fields of the game and in the source of its methods; what they call
    elsewhere is not looked at, and a finding may be harmless."""
    found = _fields(kind)
    for base in kind.__mro__:
        if base in (Game, msgspec.Struct, object):
            break
        try:
            lines, first = inspect.getsourcelines(base)
        except (OSError, TypeError):
            continue  # made without a file
        tree = ast.parse(textwrap.dedent("".join(lines)))
        names = _aliases(inspect.getmodule(base))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found += _method(f"{base.__name__}.{node.name}", node, first - 1, names)
    return found


def _fields(kind: type[Game]) -> list[Finding]:
    try:
        hints = typing.get_type_hints(kind)
    except Exception:  # noqa: BLE001 - an annotation of the user's that cannot be resolved may raise anything
        return []
    return [
        Finding(
            f"{kind.__name__}.{name}",
            0,
            "a set: the order of what is in it differs between processes; use a list or dict",
        )
        for name in kind.__struct_fields__
        if name in hints and _holds_set(hints[name])
    ]


def _holds_set(hint: Any) -> bool:
    return (typing.get_origin(hint) or hint) in (set, frozenset) or any(map(_holds_set, typing.get_args(hint)))


def _aliases(module: Any) -> dict[str, str]:
    """How names of the module's are called at home: `from math import sin as s` gives {"s": "math.sin"}."""
    found = {}
    for name, value in vars(module).items() if module is not None else ():
        home = getattr(value, "__module__", None)
        if inspect.ismodule(value):
            found[name] = value.__name__
        elif callable(value) and isinstance(home, str):
            found[name] = f"{home}.{getattr(value, '__name__', name)}"
    return found


def _method(where: str, method: ast.FunctionDef, offset: int, names: dict[str, str]) -> list[Finding]:
    found = []
    for node in ast.walk(method):
        what = ""
        if isinstance(node, ast.Call):
            what = _call(_dotted(node.func, names))
        elif isinstance(node, ast.For | ast.comprehension) and _is_set(node.iter):
            what = "goes through a set, whose order differs between processes: use sorted(...)"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _is_whole(node.right):
            what = "a power with an exponent that is no whole number goes through the platform's libm: its last bits differ"
        elif isinstance(node, ast.Global | ast.Nonlocal):
            what = f"writes {', '.join(node.names)}, which is no field: it is not saved and not replayed"
        if what:
            line: int = node.iter.lineno if isinstance(node, ast.comprehension) else getattr(node, "lineno", 1)
            found.append(Finding(where, line + offset, what))
    return found


def _call(name: str) -> str:
    module, _, function = name.rpartition(".")
    root = module.partition(".")[0]
    if root in ("math", "cmath") and function in INEXACT:
        return f"{name}: its last bits are the platform's; use integers, a table, or + - * / and sqrt"
    if root in CLOCKS and function in _READS:
        return f"{name}: a clock differs on every machine and in every replay; count ticks"
    if root in DICE or module.startswith(("numpy.random", "np.random")) or name == "os.urandom":
        return f"{name}: dice that are not part of the state; use self.random"
    if name in ("hash", "builtins.hash", "id", "builtins.id"):
        return f"{function}(): differs between processes"
    if name in ("pow", "builtins.pow"):
        return "pow(): of floats its last bits are the platform's"
    return ""


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value, names)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")


def _is_whole(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)
