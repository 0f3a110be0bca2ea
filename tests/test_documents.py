"""The pages for people: links lead somewhere, commands exist, and the plan of the house is that of the tree."""

from __future__ import annotations

import configparser
import re
import shlex
import textwrap
import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edge_runtime.cli.main import cli
from edge_runtime.config.load import load
from edge_runtime.config.schema import Automation
from edge_runtime.core.messages import Cause, Outcome, Verdict

HOUSE = Path(__file__).parents[1]
PAGES = sorted(
    [
        *HOUSE.glob("*.md"),
        *(page for folder in HOUSE.iterdir() if not folder.name.startswith(".") for page in folder.rglob("*.md")),
    ]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(HOUSE)) for page in pages]


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings: lower case, without signs, blanks as hyphens."""
    prose = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+\s+(.+)$", prose, re.MULTILINE)
    return {_anchor(heading) for heading in headings}


def _anchor(heading: str) -> str:
    kept = (sign for sign in heading.lower() if sign in "-_ " or unicodedata.category(sign)[0] in "LN")
    return "".join(kept).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(HOUSE), f"{target} leads out of the tree"
        assert not anchor or anchor in anchors(file), target


def test_every_page_for_people_is_reached_from_the_readme() -> None:
    reached, new = set(), {HOUSE / "README.md"}
    while new:
        reached |= new
        targets = {
            (page.parent / target.partition("#")[0]).resolve()
            for page in new
            for target in LINK.findall(FENCE.sub("", page.read_text()))
            if "://" not in target
        }
        new = {page for page in targets if page.suffix == ".md" and page.is_file()} - reached
    cards = {page for page in PAGES if page.name == "CARD.md"}  # `models show` prints them
    assert names(sorted(set(PAGES) - reached - cards)) == []


FILE = re.compile(r"^[\w./-]+\.(py|c|h|sql|service|rules)$")


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_source_file_named_on_a_page_exists(page: Path) -> None:
    """As seen from the page, from the top, or from a package; a bare name, anywhere beside or below the page."""
    from_where = (page.parent, page.parent.parent, HOUSE, HOUSE / "edge_runtime")
    for name in filter(FILE.match, CODE.findall(FENCE.sub("", page.read_text()))):
        is_there = any((folder / name).exists() for folder in from_where)
        assert is_there or any(page.parent.rglob(name)), name


# -- commands ----------------------------------------------------------------------------------------------------------


def told_commands(page: Path) -> Iterator[str]:
    """Every call of the program in code on a page, as one line each."""
    text = page.read_text()
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines()[1:-1]:
            if not line.startswith(" "):  # a drawing
                yield from _calls(line.removeprefix("$ "))
    for span in CODE.findall(FENCE.sub("", text)):
        yield from _calls(span)


def _calls(line: str) -> Iterator[str]:
    for part in re.split(r"&&|\|\s|;|\s#\s|\$\(", line):
        call = part.strip().removeprefix("sudo ").removesuffix("&").strip()
        if re.match(r"(.*/)?edge-runtime(\s|$)", call):
            yield call


def fault_of(call: str) -> str:
    """What of a call the program does not know: a command, or an option. Values are not looked at."""
    words = shlex.split(re.sub(r"[<>].*|\.\.\.|[\[\]]", "", call))[1:]
    command: click.Command = cli
    with click.Context(cli) as ctx:
        while words:
            word = words.pop(0)
            if word in ("--config", "--set"):
                words = words[1:]
            elif word.startswith("-"):
                known = {name for option in command.params for name in option.opts} | {"--help", "-h", "--version"}
                if word.partition("=")[0] not in known:
                    return f"{command.name} has no {word}"
            elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", word):
                found = [command.get_command(ctx, name) for name in word.split("|")]
                if None in found:
                    return f"{command.name} has no command {word}"
                command = next(one for one in found if one is not None)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_command_on_a_page_exists(page: Path) -> None:
    faults = {call: fault_of(call) for call in told_commands(page)}
    assert {call: fault for call, fault in faults.items() if fault} == {}


def is_group(name: str) -> bool:
    return isinstance(cli.get_command(click.Context(cli), name), click.Group)


def test_calls_are_found_and_one_of_what_is_not_there_is_noticed() -> None:
    assert sum(len(list(told_commands(page))) for page in PAGES) > 100
    assert fault_of("edge-runtime models lst")
    assert fault_of("edge-runtime parts list --newest 3")
    assert not fault_of("edge-runtime --set camera.fps=3 parts list --last 3 --json")


@pytest.mark.parametrize("group", [name for name in cli.list_commands(click.Context(cli)) if is_group(name)])
def test_every_group_lists_its_commands_whole_at_80_columns(group: str) -> None:
    told = CliRunner().invoke(cli, [group, "--help"], terminal_width=80)
    assert told.exit_code == 0 and "Commands:" in told.output
    assert [line for line in told.output.split("Commands:")[1].splitlines() if line.endswith("...")] == []


# -- the station file --------------------------------------------------------------------------------------------------

TOML = re.compile(r"^( *)```toml\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def test_every_piece_of_a_station_file_on_a_page_is_good(tmp_path: Path) -> None:
    pieces = [(page, textwrap.dedent(piece)) for page in PAGES for _, piece in TOML.findall(page.read_text())]
    assert len(pieces) >= 5
    for page, piece in pieces:
        file = tmp_path / f"{page.stem}.toml"
        file.write_text(piece)
        load(file)


# -- the plan of the house ---------------------------------------------------------------------------------------------


def rooms_of_the_plan() -> list[tuple[int, str, set[str]]]:
    """Rows of DESIGN's table of rooms: layer, room, neighbours."""
    text = (HOUSE / "edge_runtime/DESIGN.md").read_text()
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|.*\|([^|]*)\|$", text, re.MULTILINE)
    return [(int(layer), room, set(re.findall(r"`(\w+)`", neighbours))) for layer, room, neighbours in rows]


def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(HOUSE / ".importlinter")
    return parser


def test_the_plan_has_every_room_of_the_tree_and_no_other() -> None:
    rooms = {file.parent.name for file in (HOUSE / "edge_runtime").glob("*/__init__.py")}
    assert {room for _, room, _ in rooms_of_the_plan()} == rooms


def test_the_plan_has_the_layers_that_the_tree_is_held_to() -> None:
    layers = [re.findall(r"\w+", line) for line in contracts()["importlinter:contract:layers"]["layers"].split("\n")]
    floors = [set(names) for names in reversed(layers) if names]
    for number, floor in enumerate(floors, 1):
        assert {room for layer, room, _ in rooms_of_the_plan() if layer == number} == floor, f"layer {number}"


def test_the_plan_names_the_neighbours_that_may_be_used() -> None:
    allowed = contracts()["importlinter:contract:stages-apart"]["ignore_imports"]
    pairs = set(re.findall(r"edge_runtime\.(\w+)\.\*\* -> edge_runtime\.(\w+)\.\*\*", allowed))
    assert {(room, other) for _, room, others in rooms_of_the_plan() for other in others} == pairs


@pytest.mark.parametrize("kind", [Verdict, Cause, Outcome, Automation])
def test_the_glossary_names_every_value(kind: type[StrEnum]) -> None:
    rows = (HOUSE / "edge_runtime/GLOSSARY.md").read_text().splitlines()
    assert any(all(f"`{value}`" in row for value in kind) for row in rows)
