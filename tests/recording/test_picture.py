"""The picture of a part: it shows what it says, for every kind of part, and is written where asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import Region, Verdict
from edge_runtime.media import lettering
from edge_runtime.recording.evidence import load_picture
from edge_runtime.recording.picture import (
    FOOTER,
    HEADER,
    PICTURE_HEIGHT,
    VERDICT_COLOURS,
    WIDTH,
    draw_part,
    save_picture,
)
from edge_runtime.recording.reader import PartRow

SIZE = (HEADER + PICTURE_HEIGHT + FOOTER, WIDTH, 3)


def row(verdict: str | None = "reject", **changes: Any) -> PartRow:
    values: dict[str, Any] = {field.name: None for field in fields(PartRow)}
    values |= {"boot_id": 7, "part_id": 12, "trigger_ns": 0, "trigger_utc_ns": 1_800_000_000 * 10**9}
    values |= {"captured_ns": 12_300_000, "decided_ns": 18_100_000, "outcome_ns": 512_000_000, "outcome": "fired"}
    values |= {"cause": "model", "reason": "scratch 0.93 >= 0.80", "score": 0.93, "model": "scratch@1"}
    return PartRow(**{**values, "verdict": verdict, **changes})


@pytest.mark.parametrize("shape", [(720, 1280), (1080, 1920), (224, 224), (1, 1), (2000, 300)])
def test_any_size_of_picture_fits_the_frame_between_the_bars(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    drawn = draw_part(image, None, (), row())
    assert drawn.shape == SIZE and drawn.dtype == np.uint8
    assert tuple(drawn[HEADER + PICTURE_HEIGHT // 2, WIDTH // 2]) == (200, 200, 200)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_verdict_is_told_by_colour_and_by_more_than_colour(verdict: Verdict) -> None:
    drawn = draw_part(np.zeros((72, 128, 3), np.uint8), None, (), row(verdict))
    assert tuple(drawn[4, 4]) == VERDICT_COLOURS[verdict]
    others = [
        draw_part(np.zeros((72, 128, 3), np.uint8), None, (), row(other)) for other in Verdict if other != verdict
    ]
    sign = drawn[10:HEADER, 20:80].mean(axis=2) > drawn[4, 4].mean() + 20
    assert all((sign != (other[10:HEADER, 20:80].mean(axis=2) > other[4, 4].mean() + 20)).any() for other in others)


def test_heat_shows_where_it_is_and_nowhere_else() -> None:
    image = np.full((720, 1280, 3), 30, np.uint8)
    heat = np.zeros((9, 16), np.float32)
    heat[4, 8] = 1.0
    drawn = draw_part(image, heat, (), row())[HEADER : HEADER + PICTURE_HEIGHT]
    assert drawn[360, 680].max() > 100 and (drawn[:200] == 30).all() and (drawn[:, :400] == 30).all()


def test_regions_are_framed_also_at_the_edges() -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    corners = [Region(x, y, 0.05, 0.05, 0.9, "a rather long label") for x in (0.0, 0.95) for y in (0.0, 0.95)]
    drawn = draw_part(image, None, corners, row())[HEADER : HEADER + PICTURE_HEIGHT]
    assert drawn[:120, :200].any() and drawn[-120:, -200:].any() and not drawn[300:400, 500:700].any()
    assert tuple(draw_part(image, None, (), row())[HEADER + 5, 5]) == (0, 0, 0)


UNDECIDED = dict.fromkeys(("verdict", "cause", "reason", "score", "decided_ns", "outcome_ns")) | {"outcome": "unknown"}
NO_FRAME = {"verdict": "unsure", "cause": "no_frame", "captured_ns": None, "model": None, "reason": "long words " * 40}


@pytest.mark.parametrize("bare", [UNDECIDED, NO_FRAME], ids=["on its way", "no frame"])
def test_a_part_without_picture_or_decision_can_be_drawn(bare: dict[str, Any]) -> None:
    assert draw_part(None, None, (), row(**bare)).shape == SIZE


def test_old_opencv_draws_the_same_words_with_strokes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_TYPEFACE", None)
    drawn = draw_part(np.zeros((72, 128, 3), np.uint8), None, (Region(0, 0, 1, 1, 0.5, "x"),), row())
    assert drawn.shape == SIZE and (drawn[20:60, 300:600] > 150).any()
    assert lettering.text_width(lettering.fit("word " * 50, 20, 200), 20) <= 200


def test_the_suffix_chooses_the_format(tmp_path: Path, make_part: Callable[..., Any]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    save_picture(tmp_path / "a.png", image)
    save_picture(tmp_path / "a.JPG", image)
    assert np.array_equal(load_picture(tmp_path / "a.png"), image)
    with pytest.raises(UsageError, match=r"\.bmp"):
        save_picture(tmp_path / "a.bmp", image)
    with pytest.raises(StorageError, match="cannot write"):
        save_picture(tmp_path / "missing" / "a.png", image)
