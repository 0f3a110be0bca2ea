"""The message catalogue is complete, and the pages run nothing that is not a file of theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_runtime.core.messages import Cause, Label, Outcome, Verdict
from edge_runtime.serve.pages import routes
from edge_runtime.serve.pages.faces import Face
from edge_runtime.serve.pages.messages import choose, languages

STATIC = routes.STATIC
PLACE = re.compile(r"\{(\w+)\}")
FACES_ALONE = {"connecting", "offline"}  # of the screen itself


def used() -> set[str]:
    """Names that scripts and pages ask for, but for those that are put together."""
    scripts = "".join(file.read_text() for file in STATIC.glob("*.js"))
    pages = "".join(file.read_text() for file in STATIC.glob("*.html"))
    return {*re.findall(r'\bt\("([\w.]+)"', scripts), *re.findall(r'data-(?:t|placeholder)="([\w.]+)"', pages)}


@pytest.mark.parametrize("language", languages())
def test_every_language_says_everything_with_the_same_places(language: str) -> None:
    english, other = languages()["en"], languages()[language]
    assert other.keys() == english.keys()
    for name, text in english.items():
        assert set(PLACE.findall(other[name])) == set(PLACE.findall(text)), name


def test_every_text_that_a_page_asks_for_is_there() -> None:
    assert used() - languages()["en"].keys() == set()


def test_every_word_of_the_box_has_a_text() -> None:
    words = {
        f"{kind}.{one}" for kind, kinds in {"verdict": Verdict, "cause": Cause, "label": Label}.items() for one in kinds
    }
    words |= {f"outcome.{one}" for one in Outcome if one is not Outcome.UNKNOWN}
    faces = {*Face, *FACES_ALONE}
    words |= {f"face.{face}.word" for face in faces}
    words |= {f"face.{face}.{what}" for face in faces - {Face.RUNNING} for what in ("title", "belt", "do")}
    assert words - languages()["en"].keys() == set()
    looks = (STATIC / "faces.js").read_text()
    assert [face for face in faces if f"  {face}: {{" not in looks] == []


@pytest.mark.parametrize(
    "asked, accepted, chosen",
    [
        ("de", "en", "de"),
        ("", "de-CH,de;q=0.9,en;q=0.8", "de"),
        ("", "fr;q=0.9, en;q=0.3, de;q=0.4", "de"),
        ("xx", "", "en"),
        ("../../etc", "de;q=much", "en"),
    ],
)
def test_the_switch_goes_before_the_browser_and_english_is_what_is_left(asked: str, accepted: str, chosen: str) -> None:
    assert choose(asked, accepted) == chosen


@pytest.mark.parametrize("page", sorted(STATIC.glob("*.html")), ids=lambda page: page.name)
def test_a_page_has_no_script_or_style_of_its_own_and_no_outside_address(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=|javascript:", text) == []
    assert re.findall(r"""(?:src|href)=["'](?:https?:|//|/)""", text) == []
    assert "'unsafe" not in routes.POLICY and "default-src 'none'" in routes.POLICY
