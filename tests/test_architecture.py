"""The shape of the house: no two files import each other, files and classes stay small enough to be one idea."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("edge_runtime", "firmware_bridge")

MOST_LINES = 450
TABLES = {"edge_runtime/config/schema.py"}  # may be long: the station file, a row for each key

MOST_METHODS = 25
FEW_METHODS_IN = ("edge_runtime/lines", "edge_runtime/sync", "firmware_bridge")


@cache
def sources() -> dict[str, Path]:
    """Module name -> file, of both packages."""
    files = (path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in files}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(name: str) -> set[str]:
    """Modules of ours that a file imports anywhere: at its top, in functions, for the type checker alone."""
    found = set()
    for node in ast.walk(tree_of(sources()[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{name}: imports are written in full here"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (full & sources().keys()) or {node.module}
    return (found & sources().keys()) - {name}


def circles(arrows: dict[str, set[str]]) -> set[frozenset[str]]:
    """Largest groups of modules in which each reaches each other."""
    reach = {name: _reachable(name, arrows) for name in arrows}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in arrows}
    return {group for group in groups if len(group) > 1}


def _reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        for target in arrows[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return seen


def long_files() -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in sources().values()
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }


def large_classes() -> Iterator[str]:
    for path in sources().values():
        place = path.relative_to(ROOT)
        if str(place).startswith(FEW_METHODS_IN):
            for node in ast.walk(tree_of(path)):
                if isinstance(node, ast.ClassDef):
                    methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
                    if len(methods) > MOST_METHODS:
                        yield f"{place}:{node.name}"


def test_a_circle_is_found_wherever_the_import_stands():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}
    assert circles(arrows) == {frozenset("abc")}
    assert "edge_runtime.cli.main" in imported("edge_runtime.cli.beside_line")  # for the type checker alone
    assert "edge_runtime.process.unix_socket" in imported("edge_runtime.cli.beside_line")  # inside a function


def test_no_two_files_import_each_other():
    found = circles({name: imported(name) for name in sources()})
    assert found == set(), "files import each other: put what both need into a file of its own"


def test_no_file_is_too_long_but_a_table():
    assert long_files() - TABLES == set(), f"above {MOST_LINES} lines: split it by idea"


def test_no_class_is_several_ideas():
    assert set(large_classes()) == set(), f"above {MOST_METHODS} methods: it is several ideas"
