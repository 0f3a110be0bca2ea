"""What a status document becomes on the wire, and the runner that carries it there."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import ManualClock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.glance import Latencies, Percentiles
from edge_runtime.core.messages import Verdict
from edge_runtime.core.state import State
from edge_runtime.core.status import CameraReport, Status
from edge_runtime.process.ask_status import Silence
from edge_runtime.sync.sparkplug.actions import Command, Connect, Note, Publish, Sample
from edge_runtime.sync.sparkplug.metrics import AUTOMATION, BOX, RATES, ROLLBACK, StatusReader, device_tags, node_tags
from edge_runtime.sync.sparkplug.node import NodeIdentity, Phase, SparkplugNode
from edge_runtime.sync.sparkplug.payload import DataType, Metric, Payload, decode, encode
from edge_runtime.sync.sparkplug.runner import BdSeqFile, Connected, Heard, Lost, Received, SparkplugRunner
from tests.support.real_box import BEFORE
from tests.support.waiting import until


def with_health(shot: Status, component: str, state: State) -> Status:
    return replace(shot, health={**shot.health, component: replace(shot.health[component], state=state)})


def test_a_real_status_document_fills_the_declared_metrics(real_status: Status) -> None:
    sample = StatusReader().read(real_status, {"temperature_c": 51.5})
    line, camera, controller = (sample.devices[name] for name in ("line", "camera", "controller"))
    assert line and camera and controller
    assert sample.node["Model/Label"] == "scratch@1" and sample.node["Box/Temperature"] == 51.5
    assert line["Counts/Parts"] == real_status.parts > 0
    assert line["Counts/Verdict/reject"] == real_status.verdicts["reject"]
    assert line["Latency/Trigger to Verdict/p99"] == real_status.latency_ms.trigger_to_verdict.p99
    assert camera["Driver"] == "sim" and controller["Phase"] == "up" and controller["Healthy Output"] is True
    assert sample.node["Health/journal"] == sample.node["Health/evidence"] == "ok"
    older = replace(real_status, outcomes={})
    told = StatusReader().read(older, {}).devices["line"]
    assert told and told["Counts/Outcome/fired"] is None  # not in the document: unknown, not zero


def test_every_metric_of_a_real_box_has_a_value(real_status: Status) -> None:
    sample = StatusReader(has_microphone=True, commands=[AUTOMATION, ROLLBACK]).read(real_status, {})
    named = [(device, name, value) for device, told in sample.devices.items() for name, value in (told or {}).items()]
    named += [("", name, value) for name, value in sample.node.items() if name not in {tag.name for tag, _ in BOX}]
    missing = {(device, name) for device, name, value in named if value is None}
    assert missing == {("line", tag.name) for tag in RATES}  # they need two looks


def test_the_microphone_of_a_box_that_listens_is_alive(real_status: Status) -> None:
    reader = StatusReader(has_microphone=True)
    microphone = reader.read(real_status, {}).devices["microphone"]
    assert microphone and (microphone["State"], microphone["Driver"]) == ("ok", "wav")
    assert isinstance(microphone["Chunks"], int) and microphone["Chunks"] > 0 and microphone["Overruns"] == 0
    for state in (State.FAILED, State.STOPPED):
        assert reader.read(with_health(real_status, "microphone", state), {}).devices["microphone"] is None
    without = replace(real_status, report=replace(real_status.report, microphone=None))
    assert reader.read(without, {}).devices["microphone"] is None


def test_a_run_of_the_release_before_is_told_with_all_it_says() -> None:
    before = Status.from_json(json.loads(BEFORE.read_text()))
    sample = StatusReader(has_microphone=True).read(before, {})
    line, controller = sample.devices["line"], sample.devices["controller"]
    assert line and controller and line["Counts/Parts"] == before.parts and controller["Healthy Output"] is True
    assert sample.devices["microphone"] is None and sample.node["Health/microphone"] is None  # it did not tell of it


def test_every_name_that_is_read_is_declared_and_the_other_way_round(real_status: Status) -> None:
    commands = [AUTOMATION, ROLLBACK]
    sample = StatusReader(has_microphone=True, commands=commands).read(real_status, {})
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


def test_a_failed_camera_is_a_lost_device_and_a_silent_runtime_loses_all(real_status: Status) -> None:
    reader = StatusReader()
    assert reader.read(with_health(real_status, "camera", State.FAILED), {}).devices["camera"] is None
    degraded = reader.read(with_health(real_status, "camera", State.DEGRADED), {}).devices["camera"]
    assert degraded and degraded["State"] == "degraded"
    for silence in Silence:
        silent = reader.read(silence, {})
        assert set(silent.devices.values()) == {None} and silent.node["Runtime/State"] == silence.value


def test_rates_are_of_the_last_minute_and_start_anew_with_the_runtime(real_status: Status) -> None:
    reader = StatusReader()

    def rates(second: int, parts: int, rejects: int) -> Any:
        counted = {**real_status.verdicts, "reject": rejects}
        shot = replace(real_status, uptime_s=float(second), parts=parts, verdicts=counted)
        return reader.read(shot, {}).devices["line"]

    line = [rates(second, 2 * second, second // 10) for second in range(121)][-1]
    assert line["Rate/Parts"] == pytest.approx(120.0) and line["Rate/Rejects"] == pytest.approx(5.0)
    assert rates(1, 0, 0)["Rate/Parts"] is None


odd_texts = st.text(max_size=5)
odd_numbers = st.integers() | st.integers(-(2**70), 2**70)
odd_facts = st.none() | st.booleans() | odd_numbers | st.floats() | odd_texts | st.lists(st.integers(), max_size=2)


@settings(deadline=None)
@given(odd_texts, odd_numbers, st.floats(), st.dictionaries(st.sampled_from([*Verdict, "x"]), odd_numbers), st.data())
def test_whatever_a_box_tells_makes_a_birth_that_can_be_written(
    real_status: Status, text: str, number: int, share: float, counts: dict[str, int], data: st.DataObject
) -> None:
    figures = Percentiles(share, share, share, share)
    shot = replace(
        real_status, station=text, parts=number, rss_mb=share, uptime_s=share, verdicts=counts, model=text,
        latency_ms=Latencies(figures, figures, figures),
        report=replace(real_status.report, camera=CameraReport(text, number, number, None)),
    )  # fmt: skip
    box = data.draw(st.dictionaries(st.sampled_from(["outbox_waiting", "temperature_c", "time_quality"]), odd_facts))
    node = SparkplugNode(NodeIdentity("plant", "box"), node_tags(), device_tags())
    runner, link = make_runner(node, lambda: StatusReader().read(shot, box))
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


def test_the_runner_connects_tells_the_first_sample_and_hands_commands_on(real_status: Status) -> None:
    commands: list[Command] = []
    notes: list[Note] = []
    reader = StatusReader(commands=[AUTOMATION])
    runner, desk = make_runner(
        make_node(), lambda: reader.read(real_status, {}), command=commands.append, note=notes.append
    )
    runner.turn()
    runner.turn()
    assert [publish.topic.split("/")[2] for publish in desk.published] == ["NBIRTH", "DBIRTH", "DBIRTH", "DBIRTH"]
    named = {metric.name: metric.value for metric in decode(desk.published[0].payload).metrics}
    assert named["Properties/Station"] == real_status.station
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
