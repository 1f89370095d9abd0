"""A nursery raises groups, and `except SomeError` does not see into one: no handler for a single error around a call that
opens a nursery, unless `unwrapped` stands between. One packet of a server ended a whole game that way.

It reads the source: a call is followed by its name, through `self`, imports and, for methods of other objects, to every
coroutine function of that name in the package.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.house.test_structure import FILES, PACKAGE

OPENERS = {"open_nursery", "open_loop", "create_task_group", "TaskGroup", "serve_listeners", "serve_tcp"}
UNWRAPPERS = {"unwrapped"}
# What takes a group as well as a single error. `CancelledError` and `Cancelled` are no subjects of this rule.
TAKES_GROUPS = {"BaseException", "Exception", "BaseExceptionGroup", "ExceptionGroup"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Key = tuple[str, str]  # module, qualified name


class Module:
    """name: dotted. functions: by qualified name, nested ones too, as "Class.method" or "outer.inner". types: names of the
    classes of attributes, as "Class.attribute", and of arguments, as "Class.method.argument", where the source says them."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.functions: dict[str, Function] = {}
        self.protocols: set[str] = set()
        self.types: dict[str, str] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        tree = ast.parse(source)
        self._collect(tree, "")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("psyne_mesh"):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (str(node.module), alias.name)

    def _collect(self, node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef) and "Protocol" in map(_name, child.bases):
                self.protocols.add(child.name)
            if isinstance(child, Function):
                self.functions[prefix + child.name] = child
                self._note_types(child, prefix)
            if isinstance(child, Function | ast.ClassDef):
                self._collect(child, f"{prefix}{child.name}.")
            else:
                self._collect(child, prefix)

    def _note_types(self, function: Function, prefix: str) -> None:
        said = {one.arg: _class_named(one.annotation) for one in [*function.args.args, *function.args.kwonlyargs]}
        for name, type_name in said.items():
            self.types[f"{prefix}{function.name}.{name}"] = type_name
        for node in ast.walk(function):
            if isinstance(node, ast.AnnAssign):
                targets, type_name = [node.target], _class_named(node.annotation)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call | ast.Name):
                targets = [one for target in node.targets for one in getattr(target, "elts", [target])]
                type_name = said.get(node.value.id, "") if isinstance(node.value, ast.Name) else _made_by(node.value)
            else:
                continue
            for target in targets:
                if isinstance(target, ast.Attribute) and _name(target.value) == "self" and type_name:
                    self.types[prefix + target.attr] = type_name


class Source:
    """The call graph as far as the text shows it; `findings()` names each handler that a group would pass by."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self._modules = {module.name: module for module in modules}
        self._by_name: dict[str, list[Key]] = defaultdict(list)
        self._methods: dict[str, set[str]] = defaultdict(set)  # of a class: their names
        self._protocols = {name for module in self._modules.values() for name in module.protocols}
        for module in self._modules.values():
            for qualified, node in module.functions.items():
                owner, _, name = qualified.rpartition(".")
                self._methods[owner].add(name)
                if isinstance(node, ast.AsyncFunctionDef):
                    self._by_name[name].append((module.name, qualified))
        self._unwrapping = set[Key]()  # context managers that unwrap what their block raises
        self._raising = set[Key]()  # functions that a group may leave
        self._learn(self._unwrapping, self._unwraps_its_block)
        self._learn(self._raising, lambda module, qualified, body: any(self._opens(module, qualified, body)))

    def _learn(self, known: set[Key], holds: Callable[[Module, str, list[ast.stmt]], bool]) -> None:
        """Add the functions for which it holds, again and again, as what holds for one may hold for its callers."""
        before = -1
        while before != len(known):
            before = len(known)
            for module in self._modules.values():
                for qualified, node in module.functions.items():
                    if (module.name, qualified) not in known and holds(module, qualified, node.body):
                        known.add((module.name, qualified))

    def _unwraps_its_block(self, module: Module, qualified: str, body: list[ast.stmt]) -> bool:
        return any(
            isinstance(node, ast.With | ast.AsyncWith)
            and self._unwraps(module, qualified, node)
            and any(isinstance(one, ast.Yield) for one in ast.walk(node))
            for node in _within(body)
        )

    def findings(self) -> list[str]:
        found = []
        for module in self._modules.values():
            for qualified, function in module.functions.items():
                for node in _within(function.body):
                    errors, body = _handled_one_by_one(node)
                    for line, call in self._opens(module, qualified, body) if errors else ():
                        found.append(f"{module.name}:{line}: {call} may raise a group, which `{errors}` does not see")
        return found

    def _opens(self, module: Module, qualified: str, body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
        """Calls in `body` that may raise a group: line and text."""
        waiting: list[ast.AST] = list(body)
        while waiting:
            node = waiting.pop()
            if isinstance(node, Function | ast.Lambda):
                continue
            calls: list[ast.expr] = []
            if isinstance(node, ast.With | ast.AsyncWith):
                calls = [item.context_expr for item in node.items] if isinstance(node, ast.AsyncWith) else []
                if self._unwraps(module, qualified, node):
                    calls = []
                else:
                    waiting += node.body
            else:
                waiting += ast.iter_child_nodes(node)
                if isinstance(node, ast.Await):
                    calls = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
                elif isinstance(node, ast.AsyncFor):
                    calls = [node.iter]
            for call in calls:
                if isinstance(call, ast.Call) and self._may_raise_group(module, qualified, call):
                    yield call.lineno, ast.unparse(call.func)

    def _unwraps(self, module: Module, qualified: str, node: ast.With | ast.AsyncWith) -> bool:
        for item in node.items:
            call = item.context_expr
            if _name(call) in UNWRAPPERS:
                return True
            if isinstance(call, ast.Call) and isinstance(node, ast.AsyncWith):
                targets = self._targets(module, qualified, call.func)
                if targets and all(key in self._unwrapping for key in targets):
                    return True
        return False

    def _may_raise_group(self, module: Module, qualified: str, call: ast.Call) -> bool:
        if _name(call) in OPENERS:
            return True
        return any(key in self._raising for key in self._targets(module, qualified, call.func))

    def _targets(self, module: Module, qualified: str, function: ast.expr) -> list[Key]:
        if isinstance(function, ast.Name):
            return self._named(module, qualified, function.id)
        if not isinstance(function, ast.Attribute):
            return []
        owner, name = function.value, function.attr
        if isinstance(owner, ast.Name) and owner.id == "self":
            own = f"{qualified.partition('.')[0]}.{name}"
            if own in module.functions:
                return [(module.name, own)]
        return [key for key in self._by_name[name] if self._fits(self._type_of(module, qualified, owner), key[1])]

    def _named(self, module: Module, qualified: str, name: str) -> list[Key]:
        scope = qualified
        while scope:
            if f"{scope}.{name}" in module.functions:
                return [(module.name, f"{scope}.{name}")]
            scope = scope.rpartition(".")[0]
        if name in module.functions:
            return [(module.name, name)]
        if name not in module.imported:
            return []
        there, name = module.imported[name]
        if there in self._modules and name in self._modules[there].functions:
            return [(there, name)]
        return [key for key in self._by_name[name] if "." not in key[1]]  # re-exported

    def _type_of(self, module: Module, qualified: str, value: ast.expr) -> str:
        """The name of the class of `value`, or "" where nothing says it."""
        if isinstance(value, ast.Name):
            return module.types.get(f"{qualified}.{value.id}", "")
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id == "self":
            return module.types.get(f"{qualified.partition('.')[0]}.{value.attr}", "")
        return ""

    def _fits(self, type_name: str, method: str) -> bool:
        owner = method.rpartition(".")[0]
        if type_name in self._protocols:
            return self._methods[type_name] <= self._methods[owner]
        return type_name in ("", owner)


def _within(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes of `body`, without what is inside another function."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _handled_one_by_one(node: ast.AST) -> tuple[str, list[ast.stmt]]:
    """Of a `try` or a `with suppress`: the errors that it would not find in a group, and the body that it stands around."""
    if isinstance(node, ast.Try):
        blind = [handler.type for handler in node.handlers if handler.type is not None and not _takes_groups(handler)]
        return ", ".join(map(ast.unparse, blind)), node.body
    if isinstance(node, ast.With) and any(_name(item.context_expr) == "suppress" for item in node.items):
        return "suppress", node.body
    return "", []


def _takes_groups(handler: ast.ExceptHandler) -> bool:
    assert handler.type is not None
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return bool(TAKES_GROUPS & {_name(one) for one in types})


def _made_by(call: ast.Call) -> str:
    """The class of what a call returns, where it is a constructor, or Trio's pair of channels."""
    function = call.func.value if isinstance(call.func, ast.Subscript) else call.func
    name = _name(function)
    return name if name[:1].isupper() else "MemoryChannel" if name == "open_memory_channel" else ""


def _class_named(annotation: ast.expr | None) -> str:
    """The class in an annotation such as `Link`, `ice.Link` or `Link | None`; "" for others."""
    if isinstance(annotation, ast.BinOp):
        return _class_named(annotation.left)
    return _name(annotation) if isinstance(annotation, ast.Name | ast.Attribute) else ""


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_no_handler_is_blind_to_the_group_of_a_nursery() -> None:
    source = Source(Module(dotted(path), path.read_text(encoding="utf-8")) for path in FILES)
    assert source.findings() == []


LINK = """
class Link:
    async def run(self):
        async with trio.open_nursery() as nursery:
            ...
"""
RUN = "async def f(link):\n try:\n  await link.run()\n"
CAUGHT = " except OSError:\n  pass\n"
BLIND = {
    "a method of another object": RUN + CAUGHT,
    "a function on the way": "async def g(link):\n await link.run()\nasync def f():\n try:\n  await g()\n" + CAUGHT,
    "one of two": "async def f(link):\n try:\n  await (link.run() if link else g())\n" + CAUGHT,
    "suppress": "async def f(link):\n with suppress(OSError):\n  await link.run()",
    "a context manager": "async def f(link):\n try:\n  async with trio.open_nursery():\n   pass\n" + CAUGHT,
    "beside one that sees": RUN + CAUGHT + " except Exception:\n  raise",
}
SEEING = {
    "an unwrapper": "async def f(link):\n try:\n  with unwrapped():\n   await link.run()\n" + CAUGHT,
    "except*": RUN + " except* OSError:\n  pass",
    "everything": RUN + " except BaseException:\n  raise",
    "started, not awaited": "def f(link, nursery):\n try:\n  nursery.start_soon(link.run)\n" + CAUGHT,
}


@pytest.mark.parametrize("case", BLIND)
def test_it_finds(case: str) -> None:
    assert Source([Module("link", LINK), Module("user", BLIND[case])]).findings()


@pytest.mark.parametrize("case", SEEING)
def test_it_lets_pass(case: str) -> None:
    assert not Source([Module("link", LINK), Module("user", SEEING[case])]).findings()
