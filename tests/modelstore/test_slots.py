import json

import pytest

from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.modelstore.slots import FILE, Slot, Slots
from edge_runtime.modelstore.store import ModelStore


@pytest.fixture
def slots(tmp_path, make_bundle):
    store = ModelStore(tmp_path / "store", [])
    for version in ("1", "2", "3"):
        store.install(make_bundle("heatmap", name="m", version=version, folder=tmp_path / version))
    return Slots(store)


def test_without_slots_a_name_means_its_newest_version(slots):
    assert slots.reference("m") == "m"
    assert slots.of("m") == Slot()


def test_a_candidate_is_promoted_and_rolled_back(slots):
    assert slots.stage("m@2") == Slot(candidate="2")
    assert slots.promote("m", running="1") == Slot(active="2", previous="1")
    assert slots.reference("m") == "m@2"
    assert slots.reference("m@3") == "m@3"
    assert slots.rollback("m", running="2") == Slot(active="1", candidate="2")
    assert slots.reference("m") == "m@1"


def test_what_is_not_there_is_not_staged(slots):
    with pytest.raises(ModelError, match="no version '9'"):
        slots.stage("m@9")
    assert slots.of("m") == Slot()


def test_empty_slots_say_what_to_do(slots):
    with pytest.raises(ModelError, match="stage one first"):
        slots.promote("m", running="1")
    with pytest.raises(ModelError, match="no previous version"):
        slots.rollback("m", running="1")


def test_a_rollback_to_a_version_that_was_removed_is_refused(slots):
    slots.stage("m@2")
    slots.promote("m", running="1")
    slots._store.remove("m@1")
    with pytest.raises(ModelError, match="no version '1'"):
        slots.rollback("m", running="2")
    assert slots.of("m").active == "2"


@pytest.mark.parametrize("text", ["", "[]", '{"m": 5}', '{"m": {"active": 5}}', '{"m": {"colour": "red"}}'])
def test_a_damaged_file_is_told_with_the_fix(slots, text):
    (slots._store.own / FILE).write_text(text)
    with pytest.raises(StorageError, match="remove it"):
        slots.all()


def test_the_file_is_whole_json(slots):
    slots.stage("m@2")
    assert json.loads((slots._store.own / FILE).read_text())["m"]["candidate"] == "2"
