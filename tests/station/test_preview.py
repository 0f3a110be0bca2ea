"""Which part a viewer is shown, and that nothing is encoded until one asks."""

from __future__ import annotations

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_runtime.core.errors import UsageError
from edge_runtime.core.messages import Cause, Decision, Frame, PartKey, Prediction, Verdict
from edge_runtime.core.part_view import PartView
from edge_runtime.core.typed_json import from_json
from edge_runtime.media.picture import decode_picture
from edge_runtime.station.preview import Preview

HEIGHT, WIDTH = 900, 1600


def decide(preview: Preview, number: int, verdict: Verdict, *, has_frame: bool = True) -> None:
    image = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
    image.flags.writeable = False
    frame = Frame("cam0", number, 0, 0, image) if has_frame else None
    heat = np.full((18, 32), 0.5, np.float32)
    prediction = Prediction("scratch@1", 0.9, {"scratch": 0.9}, heat=heat) if has_frame else None
    key = PartKey(0x7F38, number)
    preview.decided(
        Decision(key, verdict, Cause.MODEL, "because", 0.9, 0, 0, 24_000_000, "scratch@1"), frame, prediction
    )


def look(preview: Preview, after: int = 0) -> PartView | None:
    with ThreadPoolExecutor(1) as asking:  # as the control socket does: the thread that draws steps back
        told = asking.submit(preview.answer, {"after": after}).result()
    return from_json(PartView, told, "preview") if told else None


def test_nothing_is_shown_before_the_first_part() -> None:
    assert look(Preview()) is None


def test_a_reject_is_shown_before_a_newer_good_part_and_once() -> None:
    preview = Preview()
    for number, verdict in enumerate([Verdict.ACCEPT, Verdict.REJECT, Verdict.ACCEPT], 1):
        decide(preview, number, verdict)
    first = look(preview)
    assert first and (first.part, first.verdict, first.ms) == ("7f38-2", "reject", 24.0)
    second = look(preview, first.seq)
    assert second and second.part == "7f38-3"
    assert look(preview, second.seq) is None


def test_who_remembers_an_earlier_run_is_shown_this_one() -> None:
    preview = Preview()
    decide(preview, 1, Verdict.ACCEPT)
    assert look(preview, after=5000)


def test_a_picture_is_scaled_and_tells_how_large_it_was() -> None:
    preview = Preview()
    decide(preview, 4, Verdict.ACCEPT)
    shown = look(preview)
    assert shown and (shown.width, shown.height) == (WIDTH, HEIGHT)
    pixels = decode_picture(b64decode(shown.picture))
    assert pixels.shape == (720, 1280, 3) and abs(int(pixels.mean()) - 40) <= 2
    assert decode_picture(b64decode(shown.heat)).shape[:2] == (18, 32)


def test_a_part_without_a_frame_is_shown_without_a_picture() -> None:
    preview = Preview()
    decide(preview, 1, Verdict.UNSURE, has_frame=False)
    shown = look(preview)
    assert shown and (shown.picture, shown.heat, shown.regions) == ("", "", ())


@pytest.mark.parametrize("after", ["1", None, True, 1.5])
def test_a_number_that_is_none_is_refused(after: object) -> None:
    with pytest.raises(UsageError, match="not the number of a part"):
        Preview().answer({"after": after})
