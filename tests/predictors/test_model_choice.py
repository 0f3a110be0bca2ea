"""Which model a start runs, over kinds of stores, and that the slots say what runs after every failure."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import EdgeError, ModelError, StorageError
from edge_runtime.modelstore.bundle import MANIFEST
from edge_runtime.modelstore.slots import Slots, held_of
from edge_runtime.modelstore.slots_file import FILE, Held, Slot
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors import model_choice
from edge_runtime.predictors.model_choice import Chooser, ear_bundle, proof_of, put_to_work, would_run
from edge_runtime.predictors.model_switch import Request, nobody_runs, switch, switch_stopped
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo


class Place:
    """A state folder with a store, bundles `m` of a product, and what the box would run."""

    def __init__(self, folder: Path, make_bundle) -> None:
        self.folder, self._make = folder, make_bundle
        self.shipped = folder / "shipped"
        self.store = ModelStore(folder / "models", [self.shipped])
        self.slots = Slots(self.store)

    def ship(self, version: str, **manifest):
        return self._make("heatmap", name="m", version=version, folder=self.shipped / "m" / version, **manifest)

    def install(self, version: str, **manifest):
        folder = self.folder / f"made-{version}-{len(manifest)}"
        return self.store.install(self._make("heatmap", name="m", version=version, folder=folder, **manifest))

    def cfg(self, name: str = "m") -> EdgeConfig:
        return EdgeConfig.model_validate({"model": {"name": name, "store": str(self.store.own)}})

    def chooser(self, name: str = "m") -> Chooser:
        return Chooser(self.cfg(name), self.store, self.folder / "journal.db")

    def start(self, name: str = "m"):
        chosen = self.chooser(name).choose()
        assert chosen.held.is_same(self.slots.of("m").active), "what runs is what stands in the slots"
        return chosen

    def ran(self, label: str, digest: str) -> None:
        journal = Journal(self.folder / "journal.db", RunInfo(model=label, model_digest=digest))
        journal.start()
        journal.stop()

    def put_to_work(self, version: str):
        self.slots.stage(f"m@{version}", by="test")
        request = Request("promote", "m", self.slots.of("m").candidate, "cli:ann", "better")
        return switch_stopped(self.cfg(), self.store, self.folder, request, self.chooser().next_start())

    def has_at_work(self, version: str) -> None:
        """As after a `promote`, without the seconds of its golden test."""
        running = self.chooser().next_start()
        bundle = self.store.resolve(f"m@{version}")
        proof = proof_of(bundle, self.cfg().model)
        self.slots.change(
            "m", "promoted", lambda slot: replace(put_to_work(slot, held_of(bundle), running), proven=proof)
        )

    def damage(self, version: str) -> None:
        with (self.store.own / "m" / version / "model.tflite").open("r+b") as file:
            file.seek(300)
            file.write(b"\xff")


@pytest.fixture
def place(tmp_path, make_bundle):
    return Place(tmp_path, make_bundle)


# -- what a start runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("installed", [["2"], ["1.1", "2", "10"]])
def test_what_is_installed_does_not_run_at_the_next_start(place, installed):
    place.ship("1")
    place.start()
    for version in installed:
        place.install(version)
        assert place.start().bundle.label == "m@1"


def test_a_bundle_installed_under_the_shipped_ones_version_does_not_run_in_its_place(place):
    place.ship("1")
    first = place.start()
    place.install("1", title="mine")
    assert place.store.resolve("m").manifest.title == "mine"  # `predict --model m` takes it at once
    assert place.start().bundle.digest == first.bundle.digest
    assert place.put_to_work("1").active != held_of(first.bundle)  # `promote` puts it to work
    assert place.start().bundle.manifest.title == "mine"


def test_a_shipped_model_that_comes_with_an_update_does_not_run_beside_the_one_at_work(place):
    place.ship("1")
    place.start()
    place.ship("2")
    assert place.start().bundle.label == "m@1"


def test_where_an_update_takes_the_default_away_its_own_comes_and_is_told(place):
    place.ship("1")
    place.start()
    shutil.rmtree(place.shipped / "m" / "1")
    place.ship("2")
    assert place.start().bundle.label == "m@2"
    change = place.slots.untold()[-1]
    assert (change.before, change.now, change.by) == ("m@1", "m@2", "product")


def test_a_shipped_version_that_an_update_sealed_anew_runs_where_the_station_names_it(place):
    place.ship("1")
    place.start("m@1")
    shutil.rmtree(place.shipped / "m" / "1")
    place.ship("1", title="with more statistics")
    assert place.start("m@1").bundle.manifest.title == "with more statistics"
    assert place.slots.untold()[-1].by == "product"


def test_another_bundle_in_place_of_the_named_one_is_no_order_of_the_station(place):
    place.install("1")
    place.start("m@1")
    shutil.rmtree(place.store.own / "m" / "1")
    place.install("1", title="another")
    with pytest.raises(ModelError, match="another bundle than the one that was chosen"):
        place.start("m@1")


@pytest.mark.parametrize("now", ["1", "2"])
def test_an_ear_goes_with_the_product_where_nobody_chose_another(place, now):
    place.ship("1")
    assert ear_bundle("m", place.store).label == "m@1"
    shutil.rmtree(place.shipped / "m" / "1")
    place.ship(now, title="anew")
    assert ear_bundle("m", place.store).manifest.title == "anew"
    change = place.slots.untold()[-1]
    assert (change.before, change.now, change.by) == ("m@1", f"m@{now}", "product")


def test_a_first_bundle_of_its_own_waits_to_be_put_to_work(place):
    place.install("1")
    with pytest.raises(ModelError, match=r'models promote, or set model\.name = "m@1"'):
        place.start()
    assert place.put_to_work("1").active.version == "1"
    assert place.start().bundle.label == "m@1"


def test_a_version_that_the_station_names_is_put_to_work_by_that(place):
    place.install("1")
    place.install("2")
    assert place.start("m@1").bundle.label == "m@1"
    assert place.start("m").bundle.label == "m@1"
    assert place.start("m@2").bundle.label == "m@2"
    assert place.slots.of("m").previous.version == "1"
    with pytest.raises(ModelError, match="no version '9'"):
        place.start("m@9")


@pytest.mark.parametrize("ran", ["1", "2", "10"])
def test_a_box_from_before_slots_keeps_running_what_it_ran(place, ran):
    place.ship("1")
    for version in ("2", "10"):
        place.install(version)
    digest = place.store.resolve(f"m@{ran}").digest
    place.ran("other@7", "0" * 64)
    place.ran(f"m@{ran}", digest)
    place.ran("other@8", "0" * 64)
    place.install("11")
    assert place.start().bundle.label == f"m@{ran}"
    (place.folder / "journal.db").unlink()
    assert place.start().bundle.label == f"m@{ran}"  # it stands in the slots now


def test_slots_without_digests_are_taken_and_completed(place):
    place.ship("1")
    place.install("2")
    (place.store.own / FILE).write_text('{"m": {"active": "2", "candidate": null, "previous": "1"}}')
    assert place.start().bundle.label == "m@2"
    assert place.slots.of("m").active.digest


# -- what cannot run gives way, told -----------------------------------------------------------------------------------


def spoil(place: Place, how: str) -> None:
    folder = place.store.own / "m" / "2"
    match how:
        case "bit":
            place.damage("2")
        case "model gone":
            (folder / "model.tflite").unlink()
        case "manifest gone":
            (folder / MANIFEST).unlink()
        case "folder gone":
            shutil.rmtree(folder)
        case "truncated":
            os.truncate(folder / "model.tflite", 100)
        case "other content":
            shutil.rmtree(folder)
            place.install("2", title="another")
        case "renamed":
            shutil.rmtree(folder)
            shutil.copytree(place.shipped / "m" / "1", folder)
        case "empty manifest":
            (folder / MANIFEST).write_text("")


SPOILED = ["bit", "model gone", "manifest gone", "folder gone", "truncated", "other content", "renamed",
           "empty manifest"]  # fmt: skip


@pytest.mark.parametrize("how", SPOILED)
def test_a_model_that_cannot_be_opened_gives_way_to_the_one_before(place, how):
    place.ship("1")
    place.install("2")
    place.install("3")  # newer, and nobody chose it
    place.has_at_work("2")
    spoil(place, how)
    chosen = place.start()
    assert chosen.bundle.label == "m@1" and "m@2 could not run" in chosen.fault
    change = place.slots.untold()[-1]
    assert (change.verb, change.before, change.now, change.by) == ("fell_back", "m@2", "m@1", "box")
    assert place.start().fault  # told until somebody chooses
    place.has_at_work("3")
    assert place.start().fault == ""


@pytest.mark.parametrize("how", SPOILED)
def test_without_one_before_it_the_box_does_not_start_with_another(place, how):
    place.ship("1")
    place.install("2")
    place.has_at_work("2")
    place.slots.amend("m", lambda slot: Slot(active=slot.active))
    spoil(place, how)
    with pytest.raises(EdgeError, match="m"):
        place.start()


def test_a_version_named_by_the_station_that_cannot_run_gives_way_once_and_not_in_turns(place):
    place.ship("1")
    place.install("2")
    place.start()
    place.damage("2")
    for _ in range(3):
        chosen = place.start("m@2")
        assert chosen.bundle.label == "m@1" and chosen.fault
    assert [change.verb for change in place.slots.untold()].count("fell_back") == 1


def test_a_model_that_fails_its_golden_test_on_a_new_runtime_gives_way(place, monkeypatch):
    place.ship("1")
    folder = place.folder / "golden-two"
    two = place._make("heatmap", name="m", version="2", folder=folder)
    (folder / "golden").mkdir()
    shutil.copy(Path(__file__).parents[2] / "models/scratch/1/golden/good.png", folder / "golden" / "good.png")
    (folder / "golden" / "expected.json").write_text(json.dumps({"good.png": {"score": 0.99}}))
    from edge_runtime.modelstore.bundle import seal_bundle

    place.store.install(seal_bundle(folder, two.manifest))
    place.start()
    with pytest.raises(ModelError, match="fails its own test and stays out"):
        place.put_to_work("2")
    assert place.start().bundle.label == "m@1"
    chosen = place.start("m@2")  # by the station file: the same test
    assert chosen.bundle.label == "m@1" and "fails its own test" in chosen.fault


def test_a_model_that_ends_the_process_twice_gives_way_at_the_third_start(place):
    place.ship("1")
    place.install("2")
    place.has_at_work("2")
    for _ in range(model_choice.DEATHS):
        assert place.start().bundle.label == "m@2"  # and dies before `loaded`
    chosen = place.start()
    assert chosen.bundle.label == "m@1" and "ended the process 2 times" in chosen.fault


def test_starts_that_went_well_and_power_cuts_are_not_counted_against_a_model(place, monkeypatch):
    place.ship("1")
    place.install("2")
    place.has_at_work("2")
    for _ in range(5):
        chooser = place.chooser()
        chooser.loaded(chooser.choose())
    for boot in range(10):
        monkeypatch.setattr(model_choice, "machine_boot", lambda boot=boot: f"boot-{boot}")
        assert place.start().bundle.label == "m@2"


def test_a_model_that_cannot_be_loaded_here_gives_way(place):
    place.ship("1")
    place.install("2")
    place.has_at_work("2")
    chooser = place.chooser()
    second = chooser.give_way(chooser.choose(), "not ready after 30 s")
    assert second.bundle.label == "m@1" and "not ready after 30 s" in second.fault
    assert chooser.give_way(second, "neither") is None


@pytest.mark.parametrize("text", ["", "{", '{"m": {"active": 5}}', "\x00" * 100])
def test_with_slots_in_trouble_what_ran_last_goes_on_and_nothing_else(place, text):
    place.ship("1")
    place.install("2")
    place.install("3")
    place.has_at_work("2")
    place.ran("m@2", place.start().bundle.digest)
    (place.store.own / FILE).write_text(text)
    chosen = place.chooser().choose()
    assert chosen.bundle.label == "m@2" and "remove it" in chosen.fault
    (place.folder / "journal.db").unlink()
    with pytest.raises(StorageError, match="remove it"):
        place.chooser().choose()


def test_who_looks_sees_what_would_run_and_writes_nothing(place):
    place.ship("1")
    place.install("2")
    assert would_run("m", place.store).version == "1" and would_run("m@2", place.store).version == "2"
    assert not (place.store.own / FILE).exists()
    place.has_at_work("2")
    place.install("3")
    assert would_run("m", place.store).version == "2"


def test_an_ear_keeps_its_first_model_until_the_station_names_a_later_one(place):
    place.install("1")
    assert ear_bundle("m", place.store).label == "m@1"
    place.install("2")
    assert ear_bundle("m", place.store).label == "m@1"
    assert ear_bundle("m@2", place.store).label == "m@2"
    assert ear_bundle("m", place.store).label == "m@2"


# -- a switch that fails anywhere changes nothing ----------------------------------------------------------------------


FAILURES = ["golden", "load", "ENOSPC", "EACCES", "swap", "swap raises late"]


@pytest.mark.parametrize(
    ("verb", "failure"), [*(("promote", one) for one in FAILURES), ("rollback", "ENOSPC"), ("rollback", "swap")]
)
def test_after_any_failure_of_a_switch_the_slots_say_what_runs(place, monkeypatch, verb, failure):
    place.ship("1")
    place.install("2")
    place.install("3")
    place.has_at_work("2")
    place.slots.stage("m@3")
    before = place.slots.of("m")
    running = place.start().held
    at_work = [running]
    held = before.candidate if verb == "promote" else before.previous

    def take_over(bundle, commit):
        if failure == "load":
            raise ModelError("cannot be loaded")
        commit()
        if failure == "swap raises late":
            raise RuntimeError("of a thread that cannot be started")
        at_work[0] = held_of(bundle)
        if failure == "swap":
            at_work[0] = running
            raise ModelError("the stage is gone")

    if failure == "golden":
        place.damage("3") if verb == "promote" else shutil.rmtree(place.shipped / "m" / "1")
    if failure in ("ENOSPC", "EACCES"):
        real = Path.replace

        def refuse(self, target):
            if str(target).endswith(FILE):
                raise OSError(28 if failure == "ENOSPC" else 13, failure)
            return real(self, target)

        monkeypatch.setattr(Path, "replace", refuse)
    before = place.slots.of("m")
    with pytest.raises((EdgeError, RuntimeError)):
        switch(place.cfg(), place.store, Request(verb, "m", held), running, take_over)
    monkeypatch.undo()
    after = place.slots.of("m")
    assert after.versions() == before.versions() and after.active == at_work[0] == running
    known = (FILE, "slots.lock", "activations.jsonl", ".quarantine", "m")
    assert not [left for left in place.store.own.iterdir() if left.name not in known]


def test_promote_takes_the_version_it_was_asked_for_and_keeps_what_was_staged_meanwhile(place):
    place.ship("1")
    place.install("2")
    place.install("3")
    place.start()
    place.slots.stage("m@2")
    asked = Request("promote", "m", place.slots.of("m").candidate)

    def take_over(bundle, commit):
        place.slots.stage("m@3")  # while @2 was tested and loaded
        commit()

    switch(place.cfg(), place.store, asked, place.start().held, take_over)
    assert place.slots.of("m").versions() == {"active": "2", "candidate": "3", "previous": "1"}
    with pytest.raises(ModelError, match=r"the candidate of m is 3 .* no longer 2"):
        switch(place.cfg(), place.store, asked, place.start().held, take_over)


def test_promote_is_refused_for_other_content_under_the_version_that_was_asked_for(place):
    place.ship("1")
    place.install("2")
    place.slots.stage("m@2")
    asked = Request("promote", "m", Held("2", "0" * 64))
    with pytest.raises(ModelError, match="no longer 2"):
        switch_stopped(place.cfg(), place.store, place.folder, asked, place.chooser().next_start())
    shutil.rmtree(place.store.own / "m" / "2")
    place.install("2", title="another")
    asked = Request("promote", "m", place.slots.of("m").candidate)
    with pytest.raises(ModelError, match="another bundle than the one that was chosen"):
        switch_stopped(place.cfg(), place.store, place.folder, asked, place.chooser().next_start())


def test_a_rollback_goes_back_and_keeps_what_waits(place):
    place.ship("1")
    place.install("2")
    place.put_to_work("2")
    slot = switch_stopped(
        place.cfg(), place.store, place.folder, Request("rollback", "m", None), place.chooser().next_start()
    )
    assert slot.versions() == {"active": "1", "candidate": "2", "previous": None}
    assert [change.verb for change in place.slots.untold()] == ["staged", "promoted", "rolled_back"]


def test_a_switch_beside_a_box_that_holds_its_folder_is_refused(place):
    place.ship("1")
    place.install("2")
    place.slots.stage("m@2")
    with nobody_runs(place.folder), pytest.raises(EdgeError, match="cannot be asked"):
        place.put_to_work("2")
    assert place.slots.of("m").active is None
