import json

import pytest

from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.modelstore.slots import Slots, candidate_of, held_of, previous_of
from edge_runtime.modelstore.slots_file import FILE, Held, Slot
from edge_runtime.modelstore.store import ModelStore


@pytest.fixture
def store(tmp_path, make_bundle):
    store = ModelStore(tmp_path / "store", [])
    for version in ("1", "2", "3"):
        store.install(make_bundle("heatmap", name="m", version=version, folder=tmp_path / version))
    return store


@pytest.fixture
def slots(store):
    return Slots(store)


def test_a_staged_bundle_is_held_by_version_and_digest(slots, store):
    slot = slots.stage("m@2", by="cli:ann", why="less glare")
    assert slot == Slot(candidate=held_of(store.resolve("m@2")))
    assert Slots(store).of("m") == slot and slots.waiting() == ["m@2"]


def test_what_is_not_there_is_not_staged(slots):
    with pytest.raises(ModelError, match="no version '9'"):
        slots.stage("m@9")
    assert slots.of("m") == Slot()


def test_empty_slots_say_what_to_do():
    with pytest.raises(ModelError, match="stage one first"):
        candidate_of("m", Slot())
    with pytest.raises(ModelError, match="no previous version"):
        previous_of("m", Slot())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "\x00" * 64,
        '{"m": 5}',
        '{"m": {"active": 5}}',
        '{"m": {"colour": "red"}}',
        '{"m": {"active": "1", "starts": true}}',
        '{"m": {"active": "1", "starts": NaN}}',
        '{"_changes": [{"number": 1}]}',
        '{"_told": "7"}',
        "[" * 5000,
    ],
)
def test_a_damaged_file_is_told_with_the_fix_and_not_written_over(slots, store, text):
    file = store.own / FILE
    file.write_text(text)
    with pytest.raises(StorageError, match="remove it"):
        slots.of("m")
    with pytest.raises(StorageError, match="remove it"):
        slots.stage("m@2")
    assert file.read_text() == text


def test_a_file_of_an_earlier_version_is_read_as_it_is(slots, store):
    (store.own / FILE).write_text('{"m": {"active": "2", "candidate": null, "previous": "1"}}')
    assert slots.of("m") == Slot(active=Held("2"), previous=Held("1"))
    slots.stage("m@3")
    row = json.loads((store.own / FILE).read_text())["m"]
    assert (row["active"], row["candidate"], row["previous"]) == ("2", "3", "1")


def test_each_change_says_who_and_why_until_it_is_told(slots, store):
    slots.stage("m@2", by="cli:ann", why="less glare")
    slots.stage("m@3", by="cloud")
    first, second = Slots(store).untold()
    assert (first.verb, first.now, first.by, first.why) == ("staged", "m@2", "cli:ann", "less glare")
    assert (second.before, second.now, second.by) == ("m@2", "m@3", "cloud")
    slots.told(first.number)
    assert slots.untold() == [second]
    slots.stage("m@3", by="cloud")  # nothing new
    assert slots.untold() == [second]


def test_an_edit_that_refuses_changes_nothing(slots, store):
    slots.stage("m@2")
    before = (store.own / FILE).read_bytes()

    def refuse(slot):
        raise ModelError("no")

    with pytest.raises(ModelError):
        slots.change("m", "promoted", refuse)
    assert (store.own / FILE).read_bytes() == before


def test_the_same_version_with_other_content_is_not_the_same_bundle():
    assert Held("1", "a").is_same(Held("1", "a")) and Held("1", "a").is_same(Held("1"))
    assert not Held("1", "a").is_same(Held("1", "b"))
    assert not Held("1", "a").is_same(Held("2", "a")) and not Held("1").is_same(None)
