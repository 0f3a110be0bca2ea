"""What a status document becomes on the wire, and the runner that carries it there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.core.clock import ManualClock
from edge_runtime.core.errors import DeviceError
from edge_runtime.flow.components import State
from edge_runtime.sync.sparkplug.actions import Command, Connect, Note, Publish, Sample
from edge_runtime.sync.sparkplug.metrics import AUTOMATION, ROLLBACK, StatusReader, device_tags, node_tags
from edge_runtime.sync.sparkplug.node import NodeIdentity, Phase, SparkplugNode
from edge_runtime.sync.sparkplug.payload import DataType, Metric, Payload, decode, encode
from edge_runtime.sync.sparkplug.runner import BdSeqFile, Connected, Heard, Lost, Received, SparkplugRunner
from tests.support.waiting import until

STATUS: dict[str, Any] = {
    "station": "box-7", "state": "ok", "model": "scratch@1", "config_digest": "ce66", "uptime_s": 60.0, "parts": 54,
    "verdicts": {"accept": 45, "reject": 9, "unsure": 0}, "causes": {"model": 54}, "outcomes": {"passed": 41},
    "latency_ms": {"trigger_to_verdict": {"p50": 6.2, "p99": 10.5}}, "late": 0, "on_belt": 5, "rss_mb": 127.0,
    "health": {"line": {"state": "ok"}, "camera": {"state": "degraded"}, "controller": {"state": "ok"}},
    "report": {"camera": {"frames": 54}, "controller": {"phase": "up", "boot_id": 44944}},
}  # fmt: skip


def test_a_status_document_fills_the_declared_metrics() -> None:
    sample = StatusReader().read(STATUS, {"temperature_c": 51.5})
    line, controller = sample.devices["line"], sample.devices["controller"]
    assert line and controller
    assert sample.node["Model/Label"] == "scratch@1" and sample.node["Box/Temperature"] == 51.5
    assert line["Counts/Verdict/reject"] == 9 and line["Latency/Trigger to Verdict/p99"] == 10.5
    assert line["Counts/Outcome/fired"] is None  # not in the document: unknown, not zero
    assert controller["Healthy Output"] is True


def test_every_name_that_is_read_is_declared_and_the_other_way_round() -> None:
    commands = [AUTOMATION, ROLLBACK]
    sample = StatusReader(has_microphone=True, commands=commands).read(
        STATUS | {"health": STATUS["health"] | {"microphone": {"state": "ok"}}}, {}
    )
    assert set(sample.node) == {tag.name for tag in node_tags()}
    declared = device_tags(has_microphone=True, commands=commands)
    for device, tags in declared.items():
        assert set(sample.devices[device] or ()) == {tag.name for tag in tags}


def test_only_the_allowed_commands_are_writable() -> None:
    assert not any(tag.is_writable for tags in device_tags().values() for tag in tags)
    writable = {tag.name for tags in device_tags(commands=[AUTOMATION]).values() for tag in tags if tag.is_writable}
    assert writable == {AUTOMATION}
    with pytest.raises(KeyError):
        device_tags(commands=["Shell"])


def test_a_failed_camera_is_a_lost_device_and_a_silent_runtime_loses_all() -> None:
    reader = StatusReader()
    failed = STATUS | {"health": STATUS["health"] | {"camera": {"state": "failed"}}}
    assert reader.read(failed, {}).devices["camera"] is None
    silent = reader.read(None, {})
    assert set(silent.devices.values()) == {None} and silent.node["Runtime/State"] == "stopped"


def test_rates_are_of_the_last_minute_and_start_anew_with_the_runtime() -> None:
    reader = StatusReader()
    for second in range(121):
        verdicts = {"reject": second // 10}
        sample = reader.read(STATUS | {"uptime_s": float(second), "parts": 2 * second, "verdicts": verdicts}, {})
    line = sample.devices["line"]
    assert line and line["Rate/Parts"] == pytest.approx(120.0) and line["Rate/Rejects"] == pytest.approx(5.0)
    line = reader.read(STATUS | {"uptime_s": 1.0, "parts": 0}, {}).devices["line"]
    assert line and line["Rate/Parts"] is None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*STATUS, "state", "p50"]), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(list(STATUS)), json_like))
def test_any_document_makes_a_birth_that_can_be_written(document: dict[str, Any]) -> None:
    node = SparkplugNode(NodeIdentity("plant", "box"), node_tags(), device_tags())
    runner, link = make_runner(node, lambda: StatusReader().read(document, document))
    for _ in range(4):
        runner.turn()
        link.clock.advance_ms(1100)
    assert decode(link.published[0].payload).seq == 0


# The runner


class Desk:
    """A link at which everything is granted at once; a test may say what is heard."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.heard: deque[Heard] = deque()
        self.published: list[Publish] = []
        self.opened: list[Connect] = []
        self.closed = 0
        self.trouble = ""

    def open(self, connect: Connect) -> None:
        if self.trouble:
            raise DeviceError(self.trouble)
        self.opened.append(connect)
        self.heard.append(Connected())

    def turn(self, timeout_s: float) -> Sequence[Heard]:
        heard = list(self.heard)
        self.heard.clear()
        return heard

    def publish(self, publish: Publish) -> None:
        self.published.append(publish)

    def close(self) -> None:
        self.closed += 1

    def wake(self) -> None: ...


class Forgetful(BdSeqFile):
    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.kept: list[int] = []

    def write(self, bd_seq: int) -> None:
        self.kept.append(bd_seq)


def make_runner(node: SparkplugNode, read: Any, **more: Any) -> tuple[SparkplugRunner, Desk]:
    desk = Desk()
    more.setdefault("bd_seq", Forgetful())
    runner = SparkplugRunner(node, desk, read=read, clock=desk.clock, wall=lambda: desk.clock.now_ns // 10**6, **more)
    return runner, desk


def make_node() -> SparkplugNode:
    return SparkplugNode(NodeIdentity("plant", "box"), node_tags(), device_tags(commands=[AUTOMATION]))


def test_the_runner_connects_tells_the_first_sample_and_hands_commands_on() -> None:
    commands: list[Command] = []
    notes: list[Note] = []
    reader = StatusReader(commands=[AUTOMATION])
    runner, desk = make_runner(make_node(), lambda: reader.read(STATUS, {}), command=commands.append, note=notes.append)
    runner.turn()
    runner.turn()
    assert [publish.topic.split("/")[2] for publish in desk.published] == ["NBIRTH", "DBIRTH", "DBIRTH", "DBIRTH"]
    named = {metric.name: metric.value for metric in decode(desk.published[0].payload).metrics}
    assert named["Properties/Station"] == "box-7"
    order = encode(Payload([Metric(AUTOMATION, "watch", DataType.STRING)]))
    desk.heard.append(Received("spBv1.0/plant/DCMD/box/line", order))
    runner.turn()
    assert [command.value for command in commands] == ["watch"]
    assert [note.kind for note in notes] == ["sparkplug.born"]


def test_the_runner_lives_through_a_box_that_cannot_be_read_and_a_link_that_is_lost() -> None:
    def read() -> Sample:
        raise DeviceError("no edge-runtime is running here")

    runner, desk = make_runner(make_node(), read)
    desk.trouble = "nobody listens there"
    runner.turn()
    assert "nobody listens" in runner._trouble and runner.node.phase is Phase.RESTING
    desk.trouble = ""
    for _ in range(30):
        desk.clock.advance_ms(500)
        runner.turn()
    assert runner.node.phase is Phase.BORN
    desk.heard.append(Lost("cable"))
    runner.turn()
    assert runner.report()["lost"] == 1 and runner.node.phase is Phase.RESTING


def test_stop_tells_the_hosts_and_closes_the_link() -> None:
    runner, desk = make_runner(make_node(), Sample)
    assert runner.health().state is State.STOPPED
    runner.start()
    until(lambda: runner.node.phase is Phase.BORN)
    runner.stop()
    runner.stop()
    assert desk.published[-1].topic == "spBv1.0/plant/NDEATH/box" and desk.published[-1].qos == 1
    assert desk.closed == 1


def test_the_session_number_is_kept_over_restarts_and_damage(tmp_path: Path) -> None:
    file = BdSeqFile(tmp_path / "bd_seq")
    assert file.read() == 0
    file.write(255)
    assert BdSeqFile(tmp_path / "bd_seq").read() == 255
    for damage in ("", "256", "-1", "abc", "\0\0"):
        (tmp_path / "bd_seq").write_text(damage)
        assert file.read() == 0


def test_a_session_number_that_cannot_be_kept_does_not_stop_the_live_tags(tmp_path: Path) -> None:
    runner, desk = make_runner(make_node(), Sample, bd_seq=BdSeqFile(tmp_path / "gone" / "bd_seq"))
    runner.turn()
    runner.turn()
    assert runner.node.phase is Phase.BORN and desk.published
