"""From the repository to the candidate slot: what lands, what is tried, what stays out, and what people are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_runtime.cli.main import Session, cli
from edge_runtime.core.errors import ModelError
from edge_runtime.core.events import EventKind
from edge_runtime.flow.components import State
from edge_runtime.modelstore.bundle import pack_bundle, seal_bundle
from edge_runtime.modelstore.provenance import Origin
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.store import ModelStore, open_store
from edge_runtime.modelstore.updates.sources import FolderSource
from edge_runtime.modelstore.updates.trust import UpdateRefused
from edge_runtime.predictors.model_reports import list_models, verify_models
from edge_runtime.predictors.model_update import update_model
from edge_runtime.sync.update_watch import UpdateWatch
from tests.modelstore.update_rig import Box, Publisher, Server
from tests.support import spot_models
from tests.support.waiting import until


class Place:
    """A publisher, and a box that trusts it and wants signatures."""

    def __init__(self, folder: Path, make_bundle) -> None:
        self.folder, self.make = folder, make_bundle
        self.publisher = Publisher(folder, make_bundle)
        self.box = Box(folder / "state", self.publisher.root)
        self.cfg = self.box.cfg
        self.store = open_store(self.cfg)
        self.slots = Slots(self.store)

    def update(self, **how):
        updates = self.box.updates(FolderSource(self.publisher.folder))
        return update_model(self.cfg, self.store, updates, "m", "cli:ann", lambda what, done, of: None, **how)


@pytest.fixture
def place(tmp_path, make_bundle):
    return Place(tmp_path, make_bundle)


def test_a_release_becomes_the_candidate_and_nothing_else(place):
    bundle = place.publisher.publish("2")
    assert place.update(only_look=True).state == "available"
    assert place.slots.of("m").versions() == {"active": None, "candidate": None, "previous": None}
    report = place.update()
    assert (report.model, report.state, report.release, report.digest) == ("m@2", "candidate", 1, bundle.digest)
    assert place.slots.of("m").versions() == {"active": None, "candidate": "2", "previous": None}
    came = place.store.provenance(place.store.find("m@2"))
    assert (came.origin, came.by, came.release) == (Origin.SIGNED, "cli:ann", 1)
    assert not list((place.box.state / "updates" / "download").iterdir())
    assert place.update().state == "candidate"
    assert len(place.slots.untold()) == 1


def test_what_was_taken_is_not_staged_again_behind_a_persons_back(place):
    place.publisher.publish("2")
    place.update()
    place.slots.change("m", "undone", lambda slot: type(slot)())
    assert place.update().state == "taken"
    assert place.slots.of("m").candidate is None


def test_a_model_that_kills_its_child_is_in_quarantine_with_the_reason_until_it_passes(place, tmp_path):
    (tmp_path / "killer.tflite").write_bytes(spot_models.killer())
    bundle = place.publisher.publish("2", model=tmp_path / "killer.tflite")
    with pytest.raises(ModelError, match="segmentation fault"):
        place.update()
    assert place.slots.of("m").candidate is None
    assert "segmentation fault" in place.store.notes.quarantined(bundle.digest)
    with pytest.raises(UpdateRefused, match=r"is in quarantine: .*segmentation fault"):
        place.update()
    with pytest.raises(ModelError, match="is in quarantine"):
        place.slots.stage("m@2")
    row = next(row for row in list_models(place.cfg, place.store) if row["model"] == "m@2")
    assert "in quarantine" in row["problem"]
    assert [change.verb for change in place.slots.untold()] == ["quarantined"]
    assert not verify_models("m@2", place.cfg, place.store)[0]["ok"]
    place.publisher.publish("3")
    assert place.update().state == "candidate"


def test_a_bundle_leaves_quarantine_when_it_passes_its_test(place):
    bundle = place.publisher.publish("2")
    place.update()
    place.store.notes.quarantine(bundle.digest, bundle.label, "no memory was left")
    assert verify_models("m@2", place.cfg, place.store)[0]["ok"]
    assert place.slots.stage("m@2").candidate


def test_an_unsigned_bundle_is_neither_installed_nor_staged_and_nothing_is_left(place, tmp_path, make_bundle):
    bundle = make_bundle("heatmap", name="m", version="7", folder=tmp_path / "brought")
    pack_bundle(bundle, tmp_path / "m.tar")
    for source in (bundle, bundle.folder, tmp_path / "m.tar"):
        with pytest.raises(ModelError, match=r"m@7 is not signed.*models update.*require_signature = false"):
            place.store.install(source)
    assert not (place.store.own / "m").exists()
    shutil.copytree(bundle.folder, place.store.own / "m" / "7")  # by hand
    with pytest.raises(ModelError, match="is not signed"):
        place.slots.stage("m@7")


def test_the_same_bundle_as_a_file_stays_signed(place):
    bundle = place.publisher.publish("2")
    place.update()
    assert place.store.install(bundle).digest == bundle.digest
    assert place.store.provenance(bundle).origin is Origin.SHIPPED  # it lies outside the store
    assert place.store.provenance(place.store.find("m@2")).origin is Origin.SIGNED


def test_a_box_that_takes_unsigned_models_says_so_everywhere(tmp_path, make_bundle):
    bundle = make_bundle("heatmap", name="m", version="7", folder=tmp_path / "brought")
    session = Session("embedded", [f"recording.state_dir={json.dumps(str(tmp_path / 'state'))}"])

    def models(*words: str):
        return CliRunner().invoke(cli, ["models", *words], obj=session)

    told = models("install", str(bundle.folder), "--json")
    assert json.loads(told.stdout)["origin"] == "unsigned" and "m@7 is not signed" in told.stderr
    assert "unsigned" in models("list").stdout
    (row,) = json.loads(models("log", "--json").stdout)
    assert (row["verb"], row["now"], row["digest"]) == ("installed", "m@7", bundle.digest)
    assert "unsigned, from" in row["why"]


def test_another_bundle_under_the_signed_one_is_not_installed(place, tmp_path, make_bundle):
    """The signer's own slip: the digest in the metadata is of another bundle."""
    bundle = place.publisher.publish("2")
    folder = tmp_path / "altered"
    shutil.copytree(bundle.folder, folder)
    other = seal_bundle(folder, bundle.manifest.model_copy(update={"title": "another"}))
    store = ModelStore(tmp_path / "store", [])
    with pytest.raises(ModelError, match="another bundle than m@2"):
        store.install(other, expect=(bundle.label, bundle.digest))
    assert store.list() == []


# -- what sync does by itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fetch", ["check", "download"])
def test_sync_looks_or_fetches_tells_it_once_and_installs_nothing(place, fetch):
    place.publisher.publish("2")
    told = []
    with Server(place.publisher.folder).running() as server:
        updates = place.cfg.updates.model_copy(update={"fetch": fetch, "source": server.url, "every_h": 0.05})
        cfg = place.cfg.model_copy(update={"updates": updates})
        watch = UpdateWatch(cfg, lambda kind, about: told.append((kind, about)), lambda: place.box.now, first_s=0.0)
        watch.start()
        until(lambda: watch.rounds)
        watch._round()
        watch.stop()
    kind = EventKind.UPDATE_FETCHED if fetch == "download" else EventKind.UPDATE_AVAILABLE
    assert [(one, about["model"], set(about) <= set(one.fields)) for one, about in told] == [(kind, "m@2", True)]
    files = list((place.box.state / "updates").glob("download/*.tar"))
    assert len(files) == (1 if fetch == "download" else 0)
    assert place.slots.of("m").candidate is None and not (place.store.own / "m").exists()
    assert place.update().state == "candidate"


def test_sync_tells_a_repository_that_is_not_to_be_trusted_and_bears_one_out_of_reach(place):
    place.publisher.publish("2")
    told = []
    updates = place.cfg.updates.model_copy(update={"fetch": "check", "source": str(place.publisher.folder)})
    cfg = place.cfg.model_copy(update={"updates": updates})
    watch = UpdateWatch(
        cfg, lambda kind, about: told.append((kind, about["cause"])), lambda: place.box.now, first_s=3600
    )
    watch.start()
    try:
        place.box.later(days=40)
        assert not watch._round() and not watch._round()
        assert told == [(EventKind.UPDATE_REFUSED, "expired")]
        assert watch.health().state is State.DEGRADED and "expired" in watch.health().detail
        place.publisher.folder.rename(place.publisher.folder.with_name("gone"))
        assert not watch._round()
        assert watch.health().state is State.OK and "no such folder" in watch.health().detail
    finally:
        watch.stop()
    assert len(told) == 1
