"""A setting that nothing reads is a promise that nobody keeps: every field of a configuration is used somewhere."""

from __future__ import annotations

import ast
import re

import pytest

from tests.house.test_structure import FILES

TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
SETTINGS = {
    node.name: [ast.unparse(field.target) for field in node.body if isinstance(field, ast.AnnAssign)]
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef) and (node.decorator_list or "Frozen" in map(ast.unparse, node.bases))
    if re.search(r"(Config|Policy|Limits|Settings|Budget)$", node.name)
}
# Read from an object whose name says what it is, so that a field of the same name elsewhere does not count.
READ = {
    node.attr
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.ctx, ast.Load)
    and re.search(r"config|polic|limits|settings|budget|doors|churn|^self$", ast.unparse(node.value).rpartition(".")[2])
}


def test_the_configurations_are_found() -> None:
    assert {"GossipConfig", "WebRTCConfig", "ServerConfig", "Policy", "SctpConfig", "DoorLimits"} <= set(SETTINGS)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_is_read(name: str) -> None:
    unread = [field for field in SETTINGS[name] if field not in READ]
    assert not unread, f"nothing reads {unread} of {name}: let it do something, or take it out"
