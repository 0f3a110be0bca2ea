"""What an error, a finding or a screen advises exists: the extra to install, the command to type, the key to set."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import click
import pytest
from pydantic import BaseModel

from edge_runtime.cli.main import COMMANDS, cli
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.manifest import Manifest

HOUSE = Path(__file__).parents[1]
EXTRA = re.compile(r"(?:edge-runtime|\.)\[([a-z-]+(?:,[a-z-]+)*)\]")
COMMAND = re.compile(r"(?:edge-runtime |`(?!edge-runtime ))([a-z-]+(?: [^\s;,()`'\"]+)*)")
SECTIONS = "|".join(EdgeConfig.model_fields)
KEY = re.compile(rf"(?<=[\s'\"(])(?:{SECTIONS})(?:\.[a-z0-9_]+)+")  # not at the start: events are named like keys
WRITTEN_KEY = re.compile(r"\b(?:set|clear|raise|lower|check|shorten) ([a-z_]+\.[a-z0-9_]+(?:\.[a-z0-9_]+)*)(?![\w/.])")
PROSE = {"is", "does", "closed", "holds", "for"}  # "no edge-runtime is running here"
VERBS = {"runs"}  # "another edge-runtime sync runs"


def advice() -> Iterator[tuple[str, str]]:
    """Where, and the text of each string of the product; what is filled in at run time is `{}`."""
    for root in ("edge_runtime", "firmware_bridge"):
        for file in sorted((HOUSE / root).rglob("*.py")):
            yield from ((f"{file.relative_to(HOUSE)}:{line}", text) for line, text in strings(file.read_text()))


def strings(source: str) -> Iterator[tuple[int, str]]:
    """All but docstrings."""
    pieces: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr):
            pieces.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            pieces.update(inner for part in node.values for inner in ast.walk(part))
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in pieces:
            yield node.lineno, node.value


def named(text: str) -> tuple[list[str], list[str], list[str]]:
    """Extras, commands and keys that a text names."""
    extras = [extra for found in EXTRA.findall(text) for extra in found.split(",")]
    commands = [found for found in COMMAND.findall(text) if found.split()[0] not in PROSE]
    keys = [] if "SELECT " in text else KEY.findall(text)  # tables have columns
    return extras, commands, [*keys, *WRITTEN_KEY.findall(text)]


def wrong(text: str) -> list[str]:
    """What a text names and is not there."""
    extras, commands, keys = named(text)
    return [
        *(f"extra {extra}" for extra in extras if extra not in known_extras()),
        *(why for command in commands if (why := unknown_command(command, text))),
        *(f"key {key}" for key in keys if not any(has_key(model, key.split(".")) for model in (EdgeConfig, Manifest))),
    ]


@cache
def known_extras() -> set[str]:
    return set(tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def unknown_command(words: str, text: str) -> str:
    name, *rest = words.split()
    if name not in COMMANDS:
        return (
            f"command {name}" if f"edge-runtime {name}" in text else ""
        )  # in back quotes it may be of another program
    command = cli.get_command(click.Context(cli), name)
    if isinstance(command, click.Group) and rest and re.fullmatch("[a-z][a-z-]*", rest[0]) and rest[0] not in VERBS:
        if rest[0] not in command.commands:
            return f"command {name} {rest[0]}"
        command = command.commands[rest[0]]
    assert command is not None
    options = {option for parameter in (*command.params, *cli.params) for option in parameter.opts}
    return next((f"option {word} of {words}" for word in rest if word.startswith("--") and word not in options), "")


def has_key(model: object, names: list[str]) -> bool:
    """Whether these names lead to a key of that model, or to a section."""
    if not names:
        return True
    for one in (model, *get_args(model)):  # a section may be left out: Output | None
        if isinstance(one, type) and issubclass(one, BaseModel) and names[0] in one.model_fields:
            return has_key(one.model_fields[names[0]].annotation, names[1:])
    return False


def test_what_is_advised_exists() -> None:
    faults = [f"{where}: no {what}" for where, text in advice() for what in wrong(text)]
    assert not faults, "\n".join(faults)


def test_much_is_advised() -> None:
    """Else the search has gone blind."""
    counts = [sum(len(found) for found in kind) for kind in zip(*(named(text) for _, text in advice()), strict=True)]
    assert [count >= least for count, least in zip(counts, (8, 40, 60), strict=True)] == [True] * 3, counts


@pytest.mark.parametrize(
    "text",
    [
        "needs soundfile; pip install 'edge-runtime[sound]'",
        "pip install -e '.[voice,hearing]' in a checkout",
        "start it with: edge-runtime walk",
        "look at `edge-runtime models lst`",
        "`models lst` names them",
        "import it: edge-runtime search --imprt FILE.csv",
        "check the cable or set camera.pth",
        "set serve.porrt",
        "voice.remote.ur is empty: check voice.remote.ur",
    ],
)
def test_what_does_not_exist_is_found(text: str) -> None:
    assert wrong(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'edge-runtime[voice-search]'",
        "no edge-runtime is running here; start it with: edge-runtime run",
        "another edge-runtime sync runs",
        "edge-runtime models stage {} && edge-runtime models promote, or set model.name",
        "import it: edge-runtime search --import FILE.csv",
        "`fuser {}` names it",
        "camera.lost camera=%s",
        "check output.activation",
        "the adapter echoes: set controller.rs485_echo = true",
    ],
)
def test_what_exists_is_left_alone(text: str) -> None:
    assert not wrong(text)
