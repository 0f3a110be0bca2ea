"""One table of all kinds of events: nothing tells of a kind that is not in it, and every kind is documented."""

import ast
import re
from pathlib import Path

import edge_runtime
from edge_runtime.core.events import EventKind, Severity, kind_of_change, severity_of

HOUSE = Path(edge_runtime.__file__).parent
PAGE = (HOUSE / "sync" / "records" / "RECORDS.md").read_text("utf-8")


def used_kinds() -> set[str]:
    """Names of members that the product's code mentions, the table itself aside."""
    names = set()
    for file in HOUSE.rglob("*.py"):
        if file.name == "events.py" and file.parent.name == "core":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "EventKind":
                names.add(node.attr)
    return names


def test_every_kind_is_told_by_somebody():
    told = used_kinds() | {kind.name for kind in EventKind if kind.startswith("model.")}  # those by kind_of_change
    assert told == {kind.name for kind in EventKind}


def test_names_are_dotted_and_say_what_and_how_bad():
    for kind in EventKind:
        assert kind == EventKind.COMMAND or re.fullmatch(r"[a-z]+\.[a-z_]+", kind), kind
        assert kind.severity in Severity and kind.says and len(set(kind.fields)) == len(kind.fields), kind


def test_no_event_is_made_of_a_loose_string():
    for file in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Event", "own_event", "Note"):
                assert not isinstance(node.args[0], ast.Constant | ast.JoinedStr), f"{file}:{node.lineno}"


def test_details_that_are_written_out_have_only_the_keys_of_the_table():
    """Where kind and detail stand in one call; what is put together elsewhere is seen on a running box."""
    seen = 0
    for file in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Attribute):
                continue
            owner = node.args[0].value
            if not (isinstance(owner, ast.Name) and owner.id == "EventKind"):
                continue
            keys = {word.arg for word in node.keywords if word.arg} - {"wait_s"}
            for arg in node.args[1:]:
                if isinstance(arg, ast.Dict):
                    keys |= {key.value for key in arg.keys if isinstance(key, ast.Constant)}
            kind = EventKind[node.args[0].attr]
            assert keys <= set(kind.fields), f"{file}:{node.lineno} {kind}: {keys - set(kind.fields)}"
            seen += bool(keys)
    assert seen > 20


def test_the_page_has_a_row_for_every_kind():
    rows = {row[0]: row for row in re.findall(r"^\| `([a-z_.]+)` \| (info|warning|error) \| (.*) \|$", PAGE, re.M)}
    assert set(rows) == {str(kind) for kind in EventKind}
    for kind in EventKind:
        assert rows[kind][1:] == (kind.severity, f"{kind.says} | {', '.join(f'`{key}`' for key in kind.fields)}"), kind


def test_a_kind_of_another_version_is_a_warning_and_a_change_of_one_a_change():
    assert severity_of("gate.melted") is Severity.WARNING and severity_of("link.lost") is Severity.ERROR
    assert kind_of_change("promoted") is EventKind.MODEL_PROMOTED
    assert kind_of_change("transmogrified") is EventKind.MODEL_CHANGED
