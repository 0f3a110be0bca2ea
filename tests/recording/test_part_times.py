"""`parts list --since` after clocks that were wrong: parts of this boot by their true age, a word about the others."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.cli.main import main
from edge_runtime.commissioning.doctor_retention import retention_findings
from edge_runtime.config.load import load
from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.messages import PartKey, Trigger
from edge_runtime.recording import wall_clock
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo

DAY_NS = 86_400 * SECOND
HOUR_NS = 3600 * SECOND


class Box:
    """A state folder that real journals write, under a clock and a boot that the test sets."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.state = folder / "state"
        self._flag, self._boot = folder / "synchronized", folder / "boot_id"
        patch.setattr(wall_clock, "TIMESYNC_FLAG", self._flag)
        patch.setattr(wall_clock, "_kernel_is_synced", lambda: False)
        patch.setattr(wall_clock, "MACHINE_BOOT", self._boot)
        self._parts = 0
        self.reboot()

    def reboot(self) -> None:
        self._boot.write_text(f"boot-{self._parts}")

    def run(self, off_ns: int, *, age_ns: int = 0, synced: bool = False) -> None:
        """A run that recorded two parts so long ago, with a clock that was off."""
        if synced:
            self._flag.touch()
        else:
            self._flag.unlink(missing_ok=True)
        journal = Journal(self.state / "journal.db", RunInfo(), utc_ns=lambda: time.time_ns() + off_ns)
        journal.start()
        for _ in range(2):
            self._parts += 1
            journal.triggered(Trigger(PartKey(1, self._parts), 1, monotonic_ns() - age_ns))
        journal.stop()


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def listed(box: Box, capsys: pytest.CaptureFixture[str], since: str) -> tuple[list[int], str]:
    state: list[Any] = ["--config", "embedded", "--set", f"recording.state_dir={box.state}"]
    with pytest.raises(SystemExit) as end:
        main([*state, "parts", "list", "--json", "--since", since])
    assert not end.value.code
    out, err = capsys.readouterr()
    return [row["id"] for row in json.loads(out)], err


@pytest.mark.parametrize("days", [-900, -20_000, -2, 2, 500, 20_000])
def test_parts_of_this_boot_go_by_their_true_age(days: int, box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.run(days * DAY_NS, age_ns=3 * HOUR_NS)
    box.run(days * DAY_NS)
    ids, err = listed(box, capsys, "1h")
    assert ids == [3, 4]
    assert "the clock was" in err and ("ahead of" if days > 0 else "behind") in err
    assert listed(box, capsys, "4h")[0] == [1, 2, 3, 4]


def test_a_good_clock_needs_no_words(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.run(0, age_ns=3 * HOUR_NS, synced=True)
    box.reboot()
    box.run(0, synced=True)
    assert listed(box, capsys, "1h") == ([3, 4], "")


def test_parts_of_an_earlier_boot_whose_clock_was_behind_are_told_of(
    box: Box, capsys: pytest.CaptureFixture[str]
) -> None:
    box.run(-900 * DAY_NS)
    box.reboot()
    box.run(0, synced=True)
    ids, err = listed(box, capsys, "1h")
    assert ids == [3, 4] and "parts of 1 earlier runs have older dates and may be newer" in err


def test_doctor_says_why_nothing_is_removed(box: Box) -> None:
    loaded = load(None, [f"recording.state_dir={box.state}"])
    assert list(retention_findings(loaded)) == []
    box.run(0)
    (finding,) = retention_findings(loaded)
    assert (finding.name, finding.state) == ("retention", "warn")
    assert finding.detail == "retention waits: the clock is not synchronised" and finding.fix
    box.run(500 * DAY_NS, synced=True)
    (finding,) = retention_findings(loaded)
    assert finding.state == "warn" and "the clock stepped 500 d ahead, from 20" in finding.detail
    box.reboot()
    box.run(500 * DAY_NS, synced=True)
    (finding,) = retention_findings(loaded)
    assert finding.state == "ok" and finding.detail.startswith("waits, the clock has been steady for 0")
