"""Repeated warnings are folded; lines that say who did what are not."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from edge_runtime.core.log import AUDIT, AUDITS, set_up_logging


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root, before = logging.getLogger(), (logging.getLogger().handlers[:], logging.getLogger().level)
    stream = io.StringIO()
    set_up_logging("info", stream)
    yield stream
    root.handlers, root.level = before[0], before[1]


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
@pytest.mark.parametrize("count", [1, 2, 17, AUDITS])
def test_each_line_of_an_audit_is_written(written: io.StringIO, level: int, count: int) -> None:
    for number in range(count):
        logging.getLogger("edge.audit").log(level, "control.refused pid=%d", number, extra=AUDIT)
    lines = written.getvalue().splitlines()
    assert len(lines) == count and all(f"pid={number}" in line for number, line in enumerate(lines))


def test_a_flood_of_them_is_folded_and_warnings_of_one_kind_are(written: io.StringIO) -> None:
    log = logging.getLogger("edge.flood")
    for number in range(10 * AUDITS):
        log.warning("control.refused pid=%d", number, extra=AUDIT)
    assert len(written.getvalue().splitlines()) <= AUDITS + 1
    written.truncate(0)
    for number in range(50):
        log.warning("late part=%d", number)
    assert len(written.getvalue().splitlines()) == 1
