"""Bundles that were tampered with, and archives that attack. Every one is refused in a sentence."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.core.errors import ModelError
from edge_runtime.modelstore import bundle as bundle_module
from edge_runtime.modelstore.bundle import load_bundle, pack_bundle, seal_bundle, unpack_bundle, version_key
from edge_runtime.modelstore.manifest_toml import manifest_toml, read_manifest


def full_bundle(make_bundle):
    bundle = make_bundle("heatmap", metrics={"int8.auroc": 0.97}, title='a "quoted" title, \n two lines, µ')
    (bundle.folder / "golden").mkdir()
    (bundle.folder / "golden" / "a.png").write_bytes(b"picture")
    (bundle.folder / "CARD.md").write_text("# Card\n")
    return seal_bundle(bundle.folder, bundle.manifest)


def refusal(action, *args) -> str:
    with pytest.raises(ModelError) as caught:
        action(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sealed_bundle_opens_and_says_the_same(make_bundle):
    bundle = full_bundle(make_bundle)
    again = load_bundle(bundle.folder)
    assert again == bundle
    assert set(again.manifest.files) == {"model.tflite", "labels.txt", "CARD.md", "golden/a.png"}
    assert read_manifest(bundle.folder / "manifest.toml") == bundle.manifest


def test_sealing_twice_gives_the_same_bytes(make_bundle):
    bundle = full_bundle(make_bundle)
    assert seal_bundle(bundle.folder, bundle.manifest).digest == bundle.digest
    assert manifest_toml(bundle.manifest) == (bundle.folder / "manifest.toml").read_text()


@pytest.mark.parametrize("name", ["model.tflite", "labels.txt", "CARD.md", "golden/a.png"])
def test_each_altered_missing_or_linked_file_is_noticed(make_bundle, name):
    folder = full_bundle(make_bundle).folder
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{name} was altered" in refusal(load_bundle, folder)
    path.unlink()
    assert f"{name} listed in manifest.toml but missing" in refusal(load_bundle, folder)
    elsewhere = folder.parent / "elsewhere"
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    assert "is a link" in refusal(load_bundle, folder)


def test_unlisted_files_folders_and_pipes_are_refused(make_bundle):
    folder = full_bundle(make_bundle).folder
    extra = folder / "golden" / "extra.bin"
    extra.write_bytes(b"")
    assert "golden/extra.bin not listed" in refusal(load_bundle, folder)
    extra.unlink()
    os.mkfifo(extra)
    assert "is a link or a device" in refusal(load_bundle, folder)
    extra.unlink()
    (folder / "it is me").write_bytes(b"")
    assert "not an allowed name" in refusal(load_bundle, folder)
    (folder / "it is me").unlink()
    load_bundle(folder)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "tiny-heatmap"', 'name = "../../etc"', "name: String should match"),
        ('name = "tiny-heatmap"', 'name = "tiny-heatmap"\nmood = "good"', "mood: Extra inputs"),
        ('kind = "heatmap"', 'kind = "horoscope"', "kind: Input should be 'classification'"),
        ("width = 32", "width = -1", "input.width: Input should be greater than or equal to 1, found -1"),
        ('licence = "Apache-2.0"', "", "licence: Field required"),
        ("accept_below = 0.5", "accept_below = 0.9", "accept_below 0.9 is above reject_at 0.5"),
        ('"golden/a.png"', '"../a.png"', "not an allowed name"),
        ('"golden/a.png"', '"/etc/passwd"', "not an allowed name"),
        ('"golden/a.png"', '"manifest.toml"', "lists itself"),
        ('"model.tflite"', '"modle.tflite"', "needs model.tflite"),
        ('min_runtime = "0.1.0"', 'min_runtime = "99.0"', "needs edge-runtime 99.0"),
        ('labels = ["bright"]', 'labels = ["dull"]', "labels.txt has 1 labels"),
        ("[input]", "[input", "not readable as TOML"),
    ],
)
def test_a_manifest_that_lies_is_refused(make_bundle, old, new, sentence):
    folder = full_bundle(make_bundle).folder
    path = folder / "manifest.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert sentence in refusal(load_bundle, folder)


def test_a_manifest_that_is_no_text_or_too_large_is_refused(make_bundle):
    folder = full_bundle(make_bundle).folder
    (folder / "manifest.toml").write_bytes(b"\xff\xfe\x00")
    assert "not readable as TOML" in refusal(load_bundle, folder)
    (folder / "manifest.toml").write_bytes(b"#" * (2 << 20))
    assert "at most" in refusal(load_bundle, folder)
    (folder / "manifest.toml").write_text("a = " + "[" * 100_000)
    assert "not readable as TOML" in refusal(load_bundle, folder)
    (folder / "manifest.toml").unlink()
    assert "this is not a model bundle" in refusal(load_bundle, folder)
    assert "no such bundle folder" in refusal(load_bundle, folder / "absent")


def test_random_flips_anywhere_in_a_bundle_are_noticed(make_bundle):
    folder = full_bundle(make_bundle).folder
    generator = np.random.default_rng(0)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    original = load_bundle(folder)
    for _ in range(150):
        path = paths[int(generator.integers(len(paths)))]
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[int(generator.integers(len(damaged)))] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            assert load_bundle(folder).digest != original.digest  # a flip in a comment of the manifest may pass
        except ModelError:
            pass
        path.write_bytes(content)


def test_too_many_or_too_large_files_are_refused(make_bundle, monkeypatch):
    bundle = full_bundle(make_bundle)
    monkeypatch.setattr(bundle_module, "MAX_FILES", 3)
    assert "more than 3 files" in refusal(load_bundle, bundle.folder)
    monkeypatch.setattr(bundle_module, "MAX_FILES", 2000)
    monkeypatch.setattr(bundle_module, "MAX_BUNDLE_BYTES", 1000)
    assert "refused" in refusal(load_bundle, bundle.folder)


def test_an_anomaly_bundle_needs_its_memory(make_bundle):
    with pytest.raises(ModelError, match=r"needs memory.npz"):
        make_bundle("anomaly", model=bundle_module.Path(__file__).parents[1] / "data/tiny/maps.tflite",
                    input={"width": 32, "height": 32}, output={"labels": ["odd"]})  # fmt: skip


def test_versions_sort_as_people_count():
    assert sorted(["10", "2", "1", "1.10", "1.9", "1-rc"], key=version_key) == ["1", "1.9", "1.10", "1-rc", "2", "10"]


# -- archives ------------------------------------------------------------------------------------------------------


def test_packing_is_the_same_each_time_and_comes_back_whole(make_bundle, tmp_path):
    bundle = full_bundle(make_bundle)
    pack_bundle(bundle, tmp_path / "a.tar")
    pack_bundle(bundle, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert unpack_bundle(tmp_path / "a.tar", tmp_path / "out").digest == bundle.digest


def test_an_archive_made_by_tar_opens(make_bundle, tmp_path):
    bundle = full_bundle(make_bundle)
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)):
        with tarfile.open(tmp_path / "x.tar", "w", format=form) as tar:
            tar.add(bundle.folder, ".")
        assert unpack_bundle(tmp_path / "x.tar", tmp_path / f"out{number}").digest == bundle.digest


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.pax_headers = len(content), kind, link, pax
    return info, content


ATTACKS = {
    "absolute": ([member("/etc/cron.d/evil")], "points outside"),
    "parent": ([member("../evil")], "points outside"),
    "parent inside": ([member("golden/../../evil")], "points outside"),
    "symbolic link": ([member("golden", b"", tarfile.SYMTYPE, "/etc")], "link, a device or a sparse"),
    "link then file": ([member("g", b"", tarfile.SYMTYPE, "/tmp"), member("g/evil")], "link, a device or a sparse"),
    "hard link": ([member("model.tflite", b"", tarfile.LNKTYPE, "/etc/shadow")], "link, a device or a sparse"),
    "device": ([member("null", b"", tarfile.CHRTYPE)], "link, a device or a sparse"),
    "block device": ([member("sda", b"", tarfile.BLKTYPE)], "link, a device or a sparse"),
    "pipe": ([member("pipe", b"", tarfile.FIFOTYPE)], "link, a device or a sparse"),
    "twice": ([member("model.tflite"), member("model.tflite")], "comes twice"),
    "twice by case": ([member("model.tflite"), member("MODEL.tflite")], "comes twice"),
    "twice by dot": ([member("model.tflite"), member("./model.tflite")], "comes twice"),
    "hidden": ([member(".bashrc")], "not an allowed name"),
    "deep": ([member("a/b/c/d/e")], "not an allowed name"),
    "control characters": ([member("a\x1b[2Jb")], "not an allowed name"),
    "backslash": ([member("..\\evil")], "not an allowed name"),
    "file as folder": ([member("a"), member("a/b")], "not a readable bundle archive"),
    "too many": ([member(f"f{n}") for n in range(2100)], "more than 2000 files"),
    "no manifest": ([member("model.tflite")], "no manifest.toml at the top"),
    "pax path": ([member("model.tflite", b"x", path="../../evil")], "points outside"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_archive_is_refused_and_leaves_nothing(tmp_path, attack):
    members, sentence = ATTACKS[attack]
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    into = tmp_path / "deep" / "inside" / "out"
    assert sentence in refusal(unpack_bundle, tmp_path / "x.tar", into)
    assert list(into.iterdir()) == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "inside", "out", "x.tar"]


def test_bombs_are_refused(tmp_path, monkeypatch):
    sparse = tmp_path / "sparse.tar"
    info, _ = member("model.tflite", b"")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "model.tflite",
                        "GNU.sparse.realsize": str(1 << 40)}  # fmt: skip
    content = b"0\n".ljust(512, b"\0")
    info.size = len(content)
    with tarfile.open(sparse, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    assert refusal(unpack_bundle, sparse, tmp_path / "out")
    for mode in ("w:gz", "w:xz", "w:bz2"):
        with tarfile.open(tmp_path / "x.tar", mode) as tar:
            tar.addfile(
                *[part if n == 0 else io.BytesIO(part) for n, part in enumerate(member("zeros", bytes(1 << 20)))]
            )
        assert "not a readable bundle archive" in refusal(unpack_bundle, tmp_path / "x.tar", tmp_path / "out")
    monkeypatch.setattr(bundle_module, "MAX_BUNDLE_BYTES", 1000)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(*[part if n == 0 else io.BytesIO(part) for n, part in enumerate(member("large", bytes(5000)))])
    assert "MB" in refusal(unpack_bundle, tmp_path / "x.tar", tmp_path / "out")


def test_cut_off_and_garbled_archives_are_refused(make_bundle, tmp_path):
    pack_bundle(full_bundle(make_bundle), tmp_path / "good.tar")
    content = (tmp_path / "good.tar").read_bytes()
    generator = np.random.default_rng(0)
    bad = tmp_path / "bad.tar"
    for number in range(120):
        damaged = bytearray(content[: int(generator.integers(1, len(content)))] if number % 2 else content)
        for _ in range(8):
            damaged[int(generator.integers(len(damaged)))] = int(generator.integers(256))
        bad.write_bytes(damaged)
        try:
            unpack_bundle(bad, tmp_path / f"out{number}")
        except ModelError:
            assert list((tmp_path / f"out{number}").iterdir()) == []


def test_a_bundle_is_never_unpacked_over_something(make_bundle, tmp_path):
    pack_bundle(full_bundle(make_bundle), tmp_path / "x.tar")
    (tmp_path / "out").mkdir()
    Path(tmp_path / "out" / "mine").write_text("mine")
    assert "not empty" in refusal(unpack_bundle, tmp_path / "x.tar", tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "mine"
