"""Dataclasses as JSON and back: boxes of different versions read each other, and what does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ProtocolError
from edge_runtime.core.typed_json import from_json, to_json


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True, slots=True)
class Inner:
    share: float
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Whole:
    name: str
    count: int
    is_on: bool
    colour: Colour
    maybe: float | None
    inner: Inner
    by_name: Mapping[str, Inner]
    words: tuple[str, ...]
    later: Inner | None = None
    more: int = 0


TOLD: dict[str, Any] = {
    "name": "x", "count": 3, "is_on": True, "colour": "red", "maybe": None, "inner": {"share": 0.5},
    "by_name": {"a": {"share": 1.0}}, "words": ["one", "two"], "more": 0,
}  # fmt: skip


def test_what_is_written_is_read_as_it_was() -> None:
    whole = from_json(Whole, TOLD)
    assert (whole.colour, whole.words, whole.by_name["a"].share) == (Colour.RED, ("one", "two"), 1.0)
    assert to_json(whole) == TOLD
    assert json.loads(json.dumps(to_json(whole))) == TOLD


def test_what_only_a_newer_box_tells_is_kept_where_there_is_room_and_left_away_elsewhere() -> None:
    newer = TOLD | {"unheard_of": 1, "inner": {"share": 0.5, "kept": {"deep": [1]}}}
    whole = from_json(Whole, newer)
    assert whole.inner.others == {"kept": {"deep": [1]}}
    assert to_json(whole) == TOLD | {"inner": newer["inner"]}


def test_what_an_older_box_does_not_tell_takes_its_default() -> None:
    older = {name: value for name, value in TOLD.items() if name != "more"}
    assert (from_json(Whole, older).more, from_json(Whole, older).later) == (0, None)


@pytest.mark.parametrize("name", [name for name in TOLD if name != "more"])
def test_what_is_needed_and_missing_is_named(name: str) -> None:
    lacking = {key: value for key, value in TOLD.items() if key != name}
    with pytest.raises(ProtocolError, match=f"document has no '{name}'"):
        from_json(Whole, lacking, "document")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", True, "document.count is True, not a whole number"),
        ("count", 1.5, "document.count is 1.5, not a whole number"),
        ("name", 7, "document.name is 7, not text"),
        ("is_on", 1, "document.is_on is 1, not true or false"),
        ("maybe", "much", "document.maybe is 'much', not a number"),
        ("maybe", 10**400, "not a number"),
        ("colour", "blue", "document.colour is 'blue', not one of red, green"),
        ("inner", [1], r"document.inner is \[1\], not an object with names"),
        ("by_name", {"b": {}}, "document.by_name.b has no 'share'"),
        ("words", "one", "document.words is 'one', not a list"),
        ("words", ["one", None], r"document.words\[1\] is None, not text"),
        ("name", ["long"] * 50, r"document.name is \['long', .{20,60}\.\.\., not text"),
    ],
)
def test_what_is_something_else_is_named_with_what_it_should_be(name: str, value: object, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        from_json(Whole, TOLD | {name: value}, "document")


def test_an_annotation_that_has_no_form_is_a_fault_of_the_program() -> None:
    @dataclass(frozen=True)
    class Odd:
        what: set

    with pytest.raises(TypeError, match="no form in JSON"):
        from_json(Odd, {"what": []})


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TOLD, "share", "a"]), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.one_of(json_like, st.dictionaries(st.sampled_from(list(TOLD)), json_like).map(lambda odd: TOLD | odd)))
def test_whatever_comes_is_a_document_or_a_sentence(told: object) -> None:
    try:
        whole = from_json(Whole, told)
    except ProtocolError as err:
        assert str(err)
    else:
        assert isinstance(whole, Whole)
