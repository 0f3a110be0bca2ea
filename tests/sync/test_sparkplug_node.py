"""The edge node: what it says to a broker in every weather, without broker, thread or clock."""

from __future__ import annotations

import json
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import Phase as Step
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from edge_runtime.sync.sparkplug.actions import Command, Connect, Moment
from edge_runtime.sync.sparkplug.board import Board, Tag
from edge_runtime.sync.sparkplug.history import EVERY_NS, MOST, History
from edge_runtime.sync.sparkplug.node import NodeIdentity, Phase, SparkplugNode
from edge_runtime.sync.sparkplug.payload import BAD, QUALITY, DataType, Metric, Payload, decode, encode
from tests.sync.sparkplug_tap import GROUP, NAME, Tap, reasons

TAGS = [Tag("Temperature", DataType.DOUBLE, "degC", deadband=0.5), Tag("State", DataType.STRING)]
DEVICES = {
    "line": [Tag("Parts", DataType.INT64), Tag("Degree", DataType.STRING, is_writable=True)],
    "camera": [Tag("Frames", DataType.INT64)],
}
NCMD, DCMD = f"spBv1.0/{GROUP}/NCMD/{NAME}", f"spBv1.0/{GROUP}/DCMD/{NAME}/line"
STATE = "spBv1.0/STATE/scada"


def make(host: str | None = None, servers: int = 1, bd_seq: int = 0) -> Tap:
    return Tap(SparkplugNode(NodeIdentity(GROUP, NAME, host, servers), TAGS, DEVICES, bd_seq=bd_seq, seed=1))


def born(**options: Any) -> Tap:
    tap = make(**options)
    tap.sample({"State": "ok", "Temperature": 20.0}, line={"Parts": 1, "Degree": "full"}, camera={"Frames": 1})
    tap.wait_until(Phase.BORN)
    tap.wait(2.0)
    return tap


def written(name: str, value: Any, datatype: DataType, **more: Any) -> bytes:
    return encode(Payload([Metric(name, value, datatype, **more)], 1))


REBIRTH = written("Node Control/Rebirth", True, DataType.BOOLEAN)


def state(online: bool, stamp: int) -> bytes:
    return json.dumps({"online": online, "timestamp": stamp}).encode()


def test_bd_seq_goes_up_with_each_connect_and_is_remembered_first() -> None:
    tap = born(bd_seq=254)
    for _ in range(3):
        tap.cut()
        tap.wait_until(Phase.BORN)
    assert tap.remembered == [255, 0, 1, 2]
    numbers = [decode(birth).metrics[0].value for birth in tap.published("NBIRTH")]
    assert numbers == [254, 255, 0, 1]


def test_a_connect_that_never_left_the_box_does_not_use_up_its_number() -> None:
    tap = make()
    tap.is_reachable = False
    tap.wait(300.0)
    for _ in range(20):
        tap.wait(30.0)
    assert set(tap.remembered) == {0, 1} and tap.remembered[-1] == 0
    tap.is_reachable = True
    tap.wait_until(Phase.BORN)
    assert decode(tap.published("NBIRTH")[0]).metrics[0].value == 0


def test_rests_between_attempts_double_up_to_a_minute() -> None:
    tap = make()
    tap.is_reachable = False
    moments = []
    for _ in range(3000):
        before = len(tap.remembered)
        tap.wait(0.1)
        if len(tap.remembered) > before:
            moments.append(tap.now.ns / 1e9)
    rests = [later - earlier for earlier, later in pairwise(moments)]
    assert rests[0] < 1.3 and max(rests) > 30.0 and max(rests) <= 60.2


def test_only_what_changed_more_than_its_dead_band_is_told() -> None:
    tap = born()
    before = tap.kinds()
    tap.sample({"State": "ok", "Temperature": 20.4}, line={"Parts": 1}, camera={"Frames": 1})
    assert tap.kinds() == before
    tap.sample({"Temperature": 20.5}, line={"Parts": 2})
    assert tap.kinds() == [*before, "NDATA", "DDATA"]
    [metric] = decode(tap.published("NDATA")[-1]).metrics
    assert (metric.name, metric.value, metric.datatype) == (None, 20.5, None)


def test_a_lost_device_dies_and_is_born_again() -> None:
    tap = born()
    tap.sample(camera=None)
    tap.sample(camera=None)
    tap.sample(camera={"Frames": 9})
    assert tap.kinds()[-2:] == ["DDEATH", "DBIRTH"]
    assert decode(tap.published("DBIRTH")[-1]).metrics[0].value == 9


def test_a_device_that_is_down_at_birth_is_born_unknown_and_dies_at_once() -> None:
    tap = make()
    tap.sample({"State": "ok"}, line={"Parts": 0}, camera=None)
    tap.wait_until(Phase.BORN)
    assert tap.kinds() == ["NBIRTH", "DBIRTH", "DBIRTH", "DDEATH"]
    metric = decode(tap.published("DBIRTH")[1]).metrics[0]
    assert metric.value is None and metric.properties[QUALITY].value == BAD


def test_a_rebirth_repeats_bd_seq_and_starts_seq_anew() -> None:
    tap = born()
    tap.hear(NCMD, REBIRTH)
    births = [decode(birth) for birth in tap.published("NBIRTH")]
    assert [birth.seq for birth in births] == [0, 0]
    assert births[0].metrics[0].value == births[1].metrics[0].value
    assert tap.kinds()[-3:] == ["NBIRTH", "DBIRTH", "DBIRTH"]


def test_a_storm_of_rebirth_requests_is_answered_once_a_second_with_no_data_between() -> None:
    tap = born()
    for n in range(40):
        tap.hear(NCMD, REBIRTH)
        tap.sample({"Temperature": float(100 * n)})
    assert 5 <= tap.node.births <= 9
    assert reasons(tap.results()) == {}


def test_values_of_the_offline_time_come_after_the_birth_marked_historical() -> None:
    tap = born()
    tap.cut()
    tap.is_reachable = False
    offline_at = tap.now.utc_ms
    for n in range(40):
        tap.wait(30.0)
        tap.sample({"Temperature": 100.0 + n}, line={"Parts": 100 + n})
    tap.is_reachable = True
    tap.wait_until(Phase.BORN)
    kinds = tap.kinds()
    assert kinds[kinds.index("NBIRTH", 1) :] == ["NBIRTH", "DBIRTH", "DBIRTH", "NDATA", "DDATA"]
    told = decode(tap.published("NDATA")[-1]).metrics
    assert len(told) >= 19 and all(metric.is_historical for metric in told)
    stamps = [metric.timestamp_ms or 0 for metric in told]
    assert stamps == sorted(stamps) and offline_at < stamps[0] < tap.now.utc_ms
    assert reasons(tap.results()) == {}


def test_history_is_bounded_and_counts_what_gave_way() -> None:
    history = History()
    for n in range(MOST + 51):  # the first only starts the clock
        history.add({None: [Metric("x", n - 1, DataType.INT64)]}, Moment(n * EVERY_NS, 0))
    kept = [metric.value for _, metrics in history.take() for metric in metrics]
    assert (len(kept), kept[0], history.dropped) == (MOST, 50, 50)
    assert list(history.take()) == []


def test_a_writable_metric_becomes_a_command_by_name_or_alias() -> None:
    tap = born()
    tap.hear(DCMD, written("Degree", "watch", DataType.STRING, timestamp_ms=5))
    alias = next(m.alias for m in decode(tap.published("DBIRTH")[0]).metrics if m.name == "Degree")
    tap.hear(DCMD, encode(Payload([Metric(None, "off", DataType.STRING, alias=alias)], 1), is_birth=False))
    assert tap.commands == [Command("line", "Degree", "watch", 5), Command("line", "Degree", "off", None)]


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        (NCMD, b"\xff\xff", "no Sparkplug B payload"),
        (NCMD, b"\x00" * 70_000, "more than"),
        (NCMD, written("Temperature", 1.0, DataType.DOUBLE), "not writable"),
        (NCMD, written("Reboot", True, DataType.BOOLEAN), "unknown metric"),
        (DCMD, written("Degree", 7, DataType.INT32), "does not fit"),
        (DCMD, written("Degree", None, DataType.STRING), "not a STRING"),
        (DCMD.replace("line", "oven"), written("Degree", "off", DataType.STRING), "no such device"),
        (NCMD, written("Node Control/Rebirth", 1, DataType.INT32), "does not fit|not a BOOLEAN"),
    ],
)
def test_what_is_no_allowed_command_is_refused_and_noted(topic: str, payload: bytes, why: str) -> None:
    tap = born()
    before = tap.kinds()
    tap.hear(topic, payload)
    assert tap.commands == [] and tap.kinds() == before
    assert tap.notes[-1].kind == "sparkplug.command_refused"
    assert any(part in str(tap.notes[-1].detail["why"]) for part in why.split("|"))


def test_a_command_that_the_broker_kept_is_a_replay_and_is_refused() -> None:
    tap = born()
    tap.hear(DCMD, written("Degree", "off", DataType.STRING), retained=True)
    assert tap.commands == [] and tap.notes[-1].detail["why"] == "retained"


def test_it_waits_for_the_primary_host_and_ignores_what_is_out_of_date() -> None:
    tap = make(host="scada")
    tap.sample({"State": "ok"}, line={"Parts": 0}, camera={"Frames": 0})
    tap.wait(120.0)
    assert tap.node.phase is Phase.WAITING and tap.kinds() == []
    for nonsense in (b"ONLINE", b"[]", b'{"online": 1, "timestamp": 5}', b'{"online": true}', b"[" * 100_000):
        tap.hear(STATE, nonsense)
    tap.hear(STATE, state(False, 50))
    tap.hear(STATE, state(True, 49))
    assert tap.node.phase is Phase.WAITING
    tap.hear(STATE, state(True, 51))
    assert tap.node.phase is Phase.BORN
    tap.hear(STATE, state(False, 40))
    assert tap.node.phase is Phase.BORN


def test_it_leaves_with_ndeath_when_the_host_goes_and_walks_to_the_next_server() -> None:
    tap = make(host="scada", servers=3)
    tap.sample({"State": "ok"}, line={"Parts": 0}, camera={"Frames": 0})
    tap.wait_until(Phase.WAITING)
    tap.hear(STATE, state(True, 1))
    tap.hear(STATE, state(False, 2))
    assert tap.kinds()[-1] == "NDEATH" and tap.node.phase is not Phase.BORN
    tap.wait_until(Phase.WAITING)
    assert tap.server == 1
    tap.wait(31.0)  # nobody there
    tap.wait_until(Phase.WAITING)
    assert tap.server == 2


def test_a_host_may_send_it_to_the_next_server() -> None:
    tap = born(servers=2)
    tap.hear(NCMD, written("Node Control/Next Server", True, DataType.BOOLEAN))
    tap.wait_until(Phase.BORN)
    assert tap.server == 1


def test_a_broker_that_never_answers_is_given_up() -> None:
    node = SparkplugNode(NodeIdentity(GROUP, NAME), TAGS, DEVICES)
    [_, connect] = node.tick(Moment(0, 1))
    assert isinstance(connect, Connect)
    assert node.tick(Moment(19 * 10**9, 1)) == []
    actions = node.tick(Moment(21 * 10**9, 1))
    assert type(actions[0]).__name__ == "Disconnect" and node.phase is Phase.RESTING


def test_a_calendar_that_goes_back_begins_a_new_birth_and_one_that_wobbles_does_not() -> None:
    tap = born()
    tap.now = Moment(tap.now.ns, tap.now.utc_ms - 3000)
    tap.sample({"Temperature": 50.0})
    assert tap.node.births == 1
    tap.now = Moment(tap.now.ns, tap.now.utc_ms - 3_600_000)
    tap.sample({"Temperature": 60.0})
    assert tap.node.births == 2
    assert reasons(tap.results()) == {}


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "x\0"])
def test_names_that_a_topic_cannot_carry_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a Sparkplug topic"):
        NodeIdentity("plant", name)
    with pytest.raises(ValueError, match="cannot be part of a Sparkplug topic"):
        SparkplugNode(NodeIdentity("plant", "box"), TAGS, {name: []})


def test_a_value_that_does_not_fit_its_tag_is_unknown_not_wrong() -> None:
    board = Board([Tag("n", DataType.INT64), Tag("t", DataType.STRING), Tag("r", DataType.DOUBLE)], count(1))
    metrics = board.set({"n": 2**70, "t": "\ud800", "r": float("nan"), "else": 1}, 5)
    assert [metric.value for metric in metrics] == ["?"]
    assert board.unknown == 1
    encode(Payload(board.birth(6)))


class Weather(RuleBasedStateMachine):
    """Any order of samples, losses, cuts, commands, host messages and clock steps: the checker finds no fault."""

    HOST: str | None = None
    SERVERS = 1

    @initialize(bd_seq=st.integers(0, 255))
    def begin(self, bd_seq: int) -> None:
        self.tap = make(self.HOST, self.SERVERS, bd_seq)
        self.n = 0
        self.stamp = 100

    @rule(camera=st.booleans(), line=st.booleans(), value=st.floats(-1e3, 1e3))
    def sample(self, camera: bool, line: bool, value: float) -> None:
        self.n += 1
        devices = {"camera": {"Frames": self.n} if camera else None, "line": {"Parts": self.n} if line else None}
        self.tap.sample({"Temperature": value, "State": str(self.n % 3)}, **devices)

    @rule(seconds=st.sampled_from([0.05, 0.4, 1.1, 5.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.tap.wait(seconds)

    @rule(step_ms=st.integers(-100_000, 100_000))
    def set_the_clock(self, step_ms: int) -> None:
        self.tap.now = Moment(self.tap.now.ns, self.tap.now.utc_ms + step_ms)

    @rule()
    def cut(self) -> None:
        if self.tap.node.phase in (Phase.BORN, Phase.WAITING):
            self.tap.cut()

    @rule(reachable=st.booleans())
    def reach(self, reachable: bool) -> None:
        self.tap.is_reachable = reachable or self.HOST is not None  # which server is next must stay foreseeable

    @rule(command=st.sampled_from([REBIRTH, written("Degree", "off", DataType.STRING), b"\xff", b""]))
    def order(self, command: bytes) -> None:
        if self.tap.node.phase in (Phase.BORN, Phase.WAITING):
            self.tap.hear(NCMD, command)

    @rule(online=st.booleans(), late=st.booleans())
    def host(self, online: bool, late: bool) -> None:
        if self.HOST and self.tap.node.phase in (Phase.BORN, Phase.WAITING):
            self.stamp += 1
            self.tap.hear(STATE, state(online, self.stamp - (50 if late else 0)))

    def teardown(self) -> None:
        if hasattr(self, "tap"):
            self.tap.is_reachable = True
            for _ in range(100):
                self.tap.wait(1.0)
            self.tap.stop()
            assert reasons(self.tap.results(host=self.HOST, servers=self.SERVERS)) == {}


class WeatherWithHost(Weather):
    HOST, SERVERS = "scada", 2


@pytest.mark.parametrize("weather", [Weather, WeatherWithHost], ids=["alone", "with a primary host and two servers"])
def test_no_order_of_events_makes_it_break_a_rule(weather: type[Weather]) -> None:
    steps = [Step.explicit, Step.generate]  # to shrink a history of forty events takes minutes
    short = settings(max_examples=40, stateful_step_count=40, deadline=None, phases=steps)
    run_state_machine_as_test(weather, settings=short)


@pytest.mark.parametrize("word", [b"ONLINE", b"OFFLINE", b"", b"\xff" * 100])
def test_a_host_of_sparkplug_2_2_is_named_and_not_taken_for_one_of_3_0(word: bytes) -> None:
    tap = make(host="scada")
    tap.wait_until(Phase.WAITING)
    assert tap.node.watch.old_host() == ""
    tap.hear("STATE/scada", word)
    assert tap.node.phase is Phase.WAITING and "Sparkplug 2.2 (STATE/scada is" in tap.node.watch.old_host()
    tap.hear(STATE, state(True, 51))
    assert tap.node.phase is Phase.BORN and tap.node.watch.old_host() == ""


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("host", ["", "scada"])
def test_a_night_without_a_network_is_one_note_and_the_next_one_another(host: str, servers: int) -> None:
    tap = make(host=host or None, servers=servers)

    def is_born() -> None:
        tap.is_reachable = True
        tap.wait_until(Phase.WAITING if host else Phase.BORN)
        if host:
            tap.hear(STATE, state(True, tap.now.utc_ms))
        assert tap.node.phase is Phase.BORN

    for night in range(1, 3):
        is_born()
        tap.is_reachable = False
        tap.cut()
        for _ in range(8 * 60):
            tap.wait(60.0)
        assert sum(note.kind == "sparkplug.lost" for note in tap.notes) == night
