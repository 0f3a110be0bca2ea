"""The store: the newest wins, misses suggest a name, installing is whole or not at all."""

import os
import shutil

import pytest

from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.modelstore import store as store_module
from edge_runtime.modelstore.bundle import pack_bundle
from edge_runtime.modelstore.store import ModelStore, open_bundle


@pytest.fixture
def shipped(make_bundle, tmp_path):
    for version in ("1", "2", "10"):
        make_bundle("heatmap", name="scratch", version=version, folder=tmp_path / "shipped" / "scratch" / version)
    return tmp_path / "shipped"


@pytest.fixture
def store(shipped, tmp_path):
    return ModelStore(tmp_path / "own", [shipped])


def test_newest_version_is_taken_unless_one_is_named(store):
    assert store.resolve("scratch").label == "scratch@10"
    assert store.resolve("scratch@2").label == "scratch@2"
    assert [one.label for one in store.list()] == ["scratch@10", "scratch@2", "scratch@1"]


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("scrach", "no model 'scrach'; did you mean 'scratch'?"),
        ("zebra", "no model 'zebra'; there is scratch"),
        ("scratch@11", "model 'scratch' has no version '11'; did you mean '1'"),
        ("scratch@seven", "model 'scratch' has no version 'seven'; there is 10, 2, 1"),
        ("", "no model ''"),
        ("../../etc", "no model '../../etc'"),
    ],
)
def test_a_miss_names_what_there_is(store, reference, sentence):
    with pytest.raises(ModelError) as caught:
        store.resolve(reference)
    assert sentence in str(caught.value)


def test_an_empty_store_says_so(tmp_path):
    with pytest.raises(ModelError, match="no models are installed"):
        ModelStore(tmp_path / "nowhere", []).resolve("scratch")


def test_installed_bundles_win_over_shipped_ones_and_survive_reopening(store, make_bundle, shipped, tmp_path):
    mine = make_bundle("heatmap", name="scratch", version="10", title="mine", folder=tmp_path / "mine")
    installed = store.install(mine)
    assert installed.folder == tmp_path / "own" / "scratch" / "10"
    assert ModelStore(tmp_path / "own", [shipped]).resolve("scratch").manifest.title == "mine"
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["scratch"]  # no leftovers


def test_folders_and_archives_install_alike(store, make_bundle, tmp_path):
    bundle = make_bundle("heatmap", name="oil", folder=tmp_path / "oil")
    pack_bundle(bundle, tmp_path / "oil.tar")
    assert store.install(tmp_path / "oil.tar").digest == bundle.digest
    assert store.install(tmp_path / "oil").digest == bundle.digest  # the very same again is no fault


def test_other_content_under_the_same_version_is_refused_unless_asked_for(store, make_bundle, tmp_path):
    store.install(make_bundle("heatmap", name="oil", folder=tmp_path / "a"))
    other = make_bundle("heatmap", name="oil", title="other", folder=tmp_path / "b")
    with pytest.raises(ModelError, match="oil@1 is installed already with other content; give it a new version"):
        store.install(other)
    assert store.resolve("oil").manifest.title == ""
    store.install(other, replace=True)
    assert store.resolve("oil").manifest.title == "other"
    assert sorted(path.name for path in (tmp_path / "own" / "oil").iterdir()) == ["1"]


def test_a_broken_bundle_is_not_installed(store, make_bundle, tmp_path):
    bundle = make_bundle("heatmap", name="oil", folder=tmp_path / "a")
    with (bundle.folder / "model.tflite").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelError, match=r"model.tflite was altered"):
        store.install(bundle.folder)
    assert list((tmp_path / "own").iterdir()) == []


def test_power_loss_while_installing_leaves_nothing_to_open(store, make_bundle, tmp_path, monkeypatch):
    bundle = make_bundle("heatmap", name="oil", folder=tmp_path / "a")

    def power_loss(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "_sync_tree", power_loss)
    with pytest.raises(KeyboardInterrupt):
        store.install(bundle)
    assert [one.name for one in store.list() if one.name == "oil"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_a_storage_error(shipped, make_bundle, tmp_path):
    (tmp_path / "own").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="cannot install into"):
        ModelStore(tmp_path / "own", [shipped]).install(make_bundle("heatmap", folder=tmp_path / "a"))


def test_a_file_where_the_store_should_be_is_a_storage_error(make_bundle, tmp_path):
    (tmp_path / "own").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot install into"):
        ModelStore(tmp_path / "own", []).install(make_bundle("heatmap", folder=tmp_path / "a"))


def test_a_bundle_in_the_wrong_place_is_noticed(store, shipped):
    shutil.copytree(shipped / "scratch" / "1", shipped / "scratch" / "3")
    with pytest.raises(ModelError, match="calls itself scratch@1"):
        store.resolve("scratch@3")


def test_own_bundles_can_be_removed_shipped_ones_not(store, make_bundle, tmp_path):
    store.install(make_bundle("heatmap", name="oil", folder=tmp_path / "a"))
    store.remove("oil")
    with pytest.raises(ModelError, match="no model 'oil'"):
        store.find("oil")
    with pytest.raises(ModelError, match="came with the product"):
        store.remove("scratch@1")


def test_a_path_opens_a_bundle_that_is_in_no_store(store, make_bundle, tmp_path):
    bundle = make_bundle("heatmap", name="oil", folder=tmp_path / "a")
    assert open_bundle(str(bundle.folder), store).digest == bundle.digest
    assert open_bundle("scratch@2", store).label == "scratch@2"


def test_a_model_is_made_beside_the_others_and_nothing_is_left(store, make_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with store.workshop() as folder:
        assert folder.parent == store.own
        bundle = make_bundle("heatmap", name="scratch", version="12", folder=folder / "scratch")
        assert store.install(bundle).label == "scratch@12", "another's install sweeps, and leaves ours"
        assert folder.is_dir() and [one.label for one in store.list()][:1] == ["scratch@12"]
    assert sorted(path.name for path in store.own.iterdir()) == ["scratch"]


def test_what_a_power_cut_left_of_making_one_is_swept(store):
    left = store.own / ".making-999999999-abc"
    left.mkdir(parents=True)
    with store.workshop():
        assert not left.exists()


def test_a_full_disk_is_told_before_the_work(store, monkeypatch):
    monkeypatch.setattr(store_module, "ROOM_BYTES", 1 << 60)
    with pytest.raises(StorageError, match=r"MB left, \d+ are needed to make a model; free some, or set model.store"):
        store.workshop().__enter__()
