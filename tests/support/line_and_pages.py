"""`edge-runtime run` on the simulated line and what `serve` shows of it, once for each file of tests that look at it: a
line that nobody looks at would take the other tests' cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.serve.http_box import Box, box
from tests.support.real_box import RealBox, running_box

SETTINGS = (
    'microphone.driver="sim"', 'voice.wake=""', 'voice.grammar="off"', "world.parts_per_s=4", "world.defect_share=0.4",
    "recording.good_share=0.3",
)  # fmt: skip


@dataclass
class Rig:
    line: RealBox
    url: str
    server: Box


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    state = tmp_path_factory.mktemp("line") / "state"
    with running_box(state, *SETTINGS) as line, box(state, *SETTINGS) as server:
        yield Rig(line, server.url, server)
