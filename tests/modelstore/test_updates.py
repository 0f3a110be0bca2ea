"""Signed updates under attack, against a real server with a repository of tools/repo. After each attack the good
repository is taken: nobody can lock a box out of its updates."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from edge_runtime.core.errors import ConfigError, EdgeError, StorageError
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.modelstore.updates.download import Stopped
from edge_runtime.modelstore.updates.open_source import open_source
from edge_runtime.modelstore.updates.seen import EARLIEST, SeenFile
from edge_runtime.modelstore.updates.sources import FolderSource, Interrupted, SourceError
from edge_runtime.modelstore.updates.trust import UpdateRefused
from tests.modelstore.update_rig import (
    NOW,
    Box,
    Publisher,
    Server,
    broken_off,
    cut_short,
    dripping,
    dripping_headers,
    endless,
    silent,
    swapped,
)


@pytest.fixture
def publisher(tmp_path, make_bundle):
    publisher = Publisher(tmp_path, make_bundle)
    publisher.publish("1")
    return publisher


@pytest.fixture
def server(publisher):
    with Server(publisher.folder).running() as server:
        yield server


@pytest.fixture
def box(tmp_path, publisher):
    return Box(tmp_path / "state", publisher.root)


def refused(action, *args) -> UpdateRefused:
    with pytest.raises(UpdateRefused) as caught:
        action(*args)
    return caught.value


def recovers(box, publisher, server, version):
    server.faults.clear()
    server.folder = publisher.folder
    assert box.fetch(server.url) and box.look(server.url).offer.version == version


# -- what is offered ---------------------------------------------------------------------------------------------------


def test_the_release_of_its_site_is_offered_and_fetched_as_it_was_packed(box, publisher, server, tmp_path):
    bundle = publisher.publish("2")
    publisher.publish("9", site="south")
    look = box.look(server.url)
    assert (look.offer.label, look.offer.release, look.offer.digest) == ("m@2", 2, bundle.digest)
    assert look.is_new and look.judged_by == "clock"
    (tmp_path / "x.tar").write_bytes(box.fetch(server.url))
    assert ModelStore(tmp_path / "store", []).install(tmp_path / "x.tar").digest == bundle.digest


def test_what_is_for_every_site_is_taken_where_the_site_has_none_of_its_own(box, publisher, server):
    publisher.publish("2", site="all")
    assert box.look(server.url).offer.version == "1"
    box.cfg = box.cfg.model_copy(update={"station": box.cfg.station.model_copy(update={"site": "west"})})
    assert box.look(server.url).offer.version == "2"


def test_a_folder_serves_as_well_as_a_server(box, publisher):
    assert box.fetch(FolderSource(publisher.folder)) == box.fetch(FolderSource(publisher.folder))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no source of updates is named"),
        ("/nowhere/stick", "no such folder"),
        ("/", "holds no update repository"),
        ("ftp://x/y", "no address of an update repository"),
        ("https://me:secret@host/x", "without user and password"),
        ("https://host:99999/x", "is no address"),
    ],
)
def test_what_is_no_source_is_told_with_the_fix(text, words):
    with pytest.raises(SourceError, match=words) as caught:
        open_source(text)
    assert caught.value.fix and "secret" not in str(caught.value)


# -- attacks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_cache_lost", [False, True])
def test_an_older_repository_is_refused_also_when_the_cache_was_lost(box, publisher, server, is_cache_lost):
    old = publisher.copy("old")
    publisher.publish("2")
    assert box.look(server.url).offer.version == "2"
    if is_cache_lost:
        shutil.rmtree(box.state / "updates" / "metadata")
    server.folder = old
    err = refused(box.look, server.url)
    assert err.cause == "rollback" and "older than what this box has seen" in err.what
    recovers(box, publisher, server, "2")


def test_a_repository_that_stands_still_is_refused_when_it_expires(box, publisher, server):
    assert box.look(server.url).offer
    box.later(days=31)
    err = refused(box.look, server.url)
    assert err.cause == "expired" and "what runs goes on running" in err.fix
    publisher.now = box.now
    publisher.tool.refresh(30)
    recovers(box, publisher, server, "1")


@pytest.mark.parametrize("role", ["snapshot", "targets", "site-north"])
def test_old_metadata_under_a_new_name_is_refused(box, publisher, server, role):
    old = min(publisher.folder.glob(f"metadata/*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
    publisher.publish("2", site="all")
    publisher.publish("2")
    new = max(publisher.folder.glob(f"metadata/*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
    content = new.read_bytes()
    assert old != new
    new.write_bytes(old.read_bytes())
    assert refused(box.look, server.url).cause in ("altered", "rollback")
    new.write_bytes(content)
    recovers(box, publisher, server, "2")


@pytest.mark.parametrize("role", ["timestamp", "1.site-north"])
def test_metadata_that_somebody_changed_is_refused(box, publisher, server, role):
    path = publisher.folder / "metadata" / f"{role}.json"
    content = path.read_bytes()
    table = json.loads(content)
    table["signed"]["expires"] = "2031-01-01T00:00:00Z"
    path.write_text(json.dumps(table))
    assert refused(box.look, server.url).cause in ("not_signed", "altered")
    path.write_bytes(content)
    recovers(box, publisher, server, "1")


def test_a_repository_of_other_keys_is_refused(box, publisher, server, tmp_path, make_bundle):
    (tmp_path / "other").mkdir()
    other = Publisher(tmp_path / "other", make_bundle)
    other.publish("3")
    server.folder = other.folder
    err = refused(box.look, server.url)
    assert err.cause == "not_signed" and "updates.root" in err.fix
    recovers(box, publisher, server, "1")


def test_a_root_that_too_few_have_signed_is_refused(box, publisher, server):
    publisher.tool.rotate_root("root")
    path = publisher.folder / "metadata" / "2.root.json"
    content = path.read_bytes()
    table = json.loads(content)
    table["signatures"] = table["signatures"][:1]
    path.write_text(json.dumps(table))
    assert refused(box.look, server.url).cause == "not_signed"
    path.write_bytes(content)
    recovers(box, publisher, server, "1")


def test_a_box_follows_the_root_over_rotations_of_every_key(box, publisher, server):
    for role in ("root", "timestamp", "root", "snapshot", "targets"):
        publisher.tool.rotate_root(role)
    publisher.publish("2")
    assert box.look(server.url).offer.version == "2"
    assert SeenFile(box.state / "updates").read().versions["root"] == 6


def test_the_key_of_one_site_signs_for_no_other(box, publisher, server):
    """The signer of `south` puts a model into the folder of `north`."""
    publisher.publish("9", site="south")
    draft = publisher.tool._drafted("site-south")
    stolen = draft.signed.targets.pop("south/m.tar")
    stolen.path = "north/m.tar"
    draft.signed.targets["north/m.tar"] = stolen
    publisher.tool._write("site-south", draft)
    publisher.tool.sign(30)
    assert box.look(server.url).offer.version == "1"


def test_a_number_below_one_that_was_taken_is_refused_whoever_signed_it(box, publisher, server, tmp_path, make_bundle):
    publisher.publish("5", release=50)
    updates = box.updates(server.url)
    with updates.locked():
        updates.taken(updates.look("m").offer)
    (tmp_path / "other").mkdir()
    other = Publisher(tmp_path / "other", make_bundle)
    other.publish("6")
    new = Box(box.state, other.root)  # somebody gives the box another root to trust
    with Server(other.folder).running() as elsewhere:
        err = refused(new.look, elsewhere.url)
    assert err.cause == "rollback" and "release 1, this box has had release 50" in err.what
    recovers(box, publisher, server, "5")


@pytest.mark.parametrize("fault", [endless, cut_short, swapped])
@pytest.mark.parametrize("where", ["timestamp.json", "1.root", ".snapshot.json", ".site-north.json", "m.tar"])
def test_altered_endless_and_short_files_are_refused_and_bounded(box, publisher, server, where, fault):
    if where == "1.root":
        publisher.tool.rotate_root("timestamp")
        where = "2.root"
    server.faults[where] = fault
    with pytest.raises((UpdateRefused, Interrupted)) as caught:
        box.fetch(server.url)
    assert caught.value.what and server.url in caught.value.what
    assert not list(box.state.rglob("*.tar"))
    recovers(box, publisher, server, "1")


SLOW = [(dripping, "too slowly"), (dripping_headers, "too slowly"), (silent, "is silent")]


@pytest.mark.parametrize(
    ("where", "fault", "words"),
    [*((where, *slow) for where in ("timestamp.json", "m.tar") for slow in SLOW),
     ("timestamp.json", broken_off, "broke off")],
    ids=lambda one: getattr(one, "__name__", None),
)  # fmt: skip
def test_slow_silent_and_broken_connections_end_in_time_with_the_reason(box, publisher, server, where, fault, words):
    server.faults[where] = fault
    with pytest.raises(SourceError, match=words):
        box.fetch(server.url)
    recovers(box, publisher, server, "1")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(box, publisher, server):
    server.faults["m.tar"] = lambda handler, content: (server.faults.clear(), broken_off(handler, content))
    content = box.fetch(server.url)
    ranges = [asked for path, asked in server.asked if path.endswith("m.tar")]
    assert ranges == ["", f"bytes={len(content) // 2}-"]


def test_a_part_that_is_not_of_this_file_is_begun_anew(box, publisher, server):
    offer = box.look(server.url).offer
    part = box.state / "updates" / "download" / f"{offer.sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(random.Random(1).randbytes(offer.length - 10))
    assert len(box.fetch(server.url)) == offer.length


def test_a_redirection_and_a_sick_server_are_told(box, publisher, server):
    def away(handler, content):
        handler.send_response(302)
        handler.send_header("Location", "http://elsewhere.example/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.faults["timestamp"] = away
    with pytest.raises(SourceError, match=r"points from metadata/timestamp\.json to http://elsewhere"):
        box.look(server.url)
    server.faults["timestamp"] = lambda handler, content: handler.send_error(503)
    with pytest.raises(SourceError, match="answers 503"):
        box.look(server.url)
    recovers(box, publisher, server, "1")


def test_every_single_bit_and_every_end_of_the_file_counts(box, publisher, tmp_path):
    source = FolderSource(publisher.folder)
    offer = box.look(source).offer
    file = publisher.folder / offer.path
    content = file.read_bytes()
    chance = random.Random(7)
    edges = [0, 1, 511, 512, 513, 1024, len(content) // 2, len(content) - 513, len(content) - 512, len(content) - 1]
    spoilt = [content[:size] for size in [*edges, *chance.sample(range(len(content)), 10)]]
    for at in chance.sample(range(len(content)), 30):
        spoilt.append(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
    for one in spoilt:
        file.write_bytes(one)
        with pytest.raises((UpdateRefused, Interrupted)):
            box.fetch(source)
        assert not list(box.state.rglob("*.tar"))
        shutil.rmtree(box.state / "updates" / "download")  # else good bytes of before would be gone on with
    file.write_bytes(content)
    assert box.fetch(source) == content


# -- what is lost or damaged on the box --------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, b"[" * 100_000, None], ids=lambda one: str(one)[:12])
def test_a_damaged_cache_is_made_anew(box, publisher, server, damage):
    box.look(server.url)
    publisher.tool.rotate_root("timestamp")
    box.look(server.url)
    cache = box.state / "updates" / "metadata"
    files = list(cache.rglob("*.json"))
    assert len(files) > 4
    for path in files:
        content = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
        if damage is None:
            path.mkdir()
        else:
            path.write_bytes(damage)
        assert box.look(server.url).offer.version == "1", path
        assert content


def test_a_damaged_memory_is_set_aside_and_told(box, publisher, server, caplog):
    box.look(server.url)
    path = box.state / "updates" / "seen.json"
    path.write_bytes(path.read_bytes()[:40])
    assert box.look(server.url).offer
    assert "updates.seen_damaged" in caplog.text and path.with_suffix(".damaged").exists()


def test_a_box_that_trusts_nobody_says_what_to_copy(box, publisher, server):
    publisher.root.rename(publisher.root.with_suffix(".away"))
    with pytest.raises(ConfigError, match=r"trusts no update repository yet.*copy the repository's root\.json"):
        box.look(server.url)
    publisher.root.write_text("{}")
    with pytest.raises(ConfigError, match=r"updates\.root is no root\.json"):
        box.look(server.url)


def test_a_stick_that_is_pulled_is_told_as_that_and_goes_on_when_it_is_back(box, publisher, monkeypatch):
    monkeypatch.setattr("edge_runtime.modelstore.updates.sources.PIECE_BYTES", 1000)
    source, away = FolderSource(publisher.folder), publisher.folder.with_name("away")
    updates = box.updates(source)
    with updates.locked():
        offer = updates.look("m").offer

        with pytest.raises(Stopped, match=rf"stopped at 1000 of {offer.length} bytes"):
            updates.fetch(offer, should_stop=lambda: True)
        publisher.folder.rename(away)
        publisher.folder.mkdir()  # as a mount point stays: empty
        with pytest.raises(Interrupted, match=r"was taken away while targets/.* put the stick back in"):
            updates.fetch(offer)
        publisher.folder.rmdir()
        away.rename(publisher.folder)
        sizes: list[int] = []
        assert updates.fetch(offer, lambda what, done, of: sizes.append(done)).stat().st_size == offer.length
        assert sizes[0] == 2000


def test_links_and_pipes_on_a_stick_are_not_followed(box, publisher, tmp_path):
    path = publisher.folder / "metadata" / "timestamp.json"
    real = path.rename(tmp_path / "timestamp.json")
    path.symlink_to(real)
    with pytest.raises(SourceError):
        box.look(FolderSource(publisher.folder))


def test_another_update_under_way_is_waited_for_and_told(box, publisher, monkeypatch):
    monkeypatch.setattr("edge_runtime.modelstore.updates.update.LOCK_WAIT_S", 0.1)
    first, second = box.updates(FolderSource(publisher.folder)), box.updates(FolderSource(publisher.folder))
    with first.locked(), pytest.raises(StorageError, match="another update holds"), second.locked():
        pass


# -- the clock ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [datetime(1970, 1, 1, tzinfo=UTC), NOW - timedelta(days=300)])
def test_a_clock_that_was_turned_back_opens_no_expired_repository(box, publisher, server, clock):
    box.later(days=20)
    assert box.look(server.url).judged_by == "clock"
    box.later(days=11)
    refused(box.look, server.url)
    publisher.now = box.now
    publisher.tool.refresh(5)
    box.look(server.url)
    box.now = clock
    look = box.look(server.url)
    assert look.judged_by == "floor" and SeenFile(box.state / "updates").read().floor == publisher.now


def test_without_a_clock_the_floor_decides_and_grows_with_what_was_signed(box, publisher, server):
    box.now = None
    look = box.look(server.url)
    assert (look.judged_by, SeenFile(box.state / "updates").read().floor) == ("floor", NOW)
    publisher.now = NOW + timedelta(days=400)  # a year later the box, that believes in 1970, gets a new stick
    publisher.tool.refresh(30)
    assert box.look(server.url).offer
    assert SeenFile(box.state / "updates").read().floor == publisher.now


def test_without_a_clock_what_expired_before_the_floor_is_refused(box, publisher, server, tmp_path):
    box.now = NOW + timedelta(days=29)
    box.look(server.url)
    box.now = None
    assert box.look(server.url).offer  # the floor is a day before its end
    box.now = NOW + timedelta(days=32)
    refused(box.look, server.url)  # and notes nothing: the time of a refused round is the clock's alone
    publisher.now = NOW + timedelta(days=32)
    publisher.tool.refresh(1)
    box.look(server.url)
    box.now = None
    assert SeenFile(box.state / "updates").read().floor == NOW + timedelta(days=32)


def test_a_new_box_without_a_clock_believes_in_no_time_before_this_code(box, publisher):
    box.now = None
    publisher.now = EARLIEST - timedelta(days=100)
    publisher.tool.refresh(30)
    err = refused(box.look, FolderSource(publisher.folder))
    assert err.cause == "expired" and "its clock is not synced" in err.what


def test_an_error_of_updates_names_what_and_the_fix(box, publisher, server):
    server.folder = publisher.folder / "targets"
    with pytest.raises(EdgeError) as caught:
        box.look(server.url)
    assert server.url in caught.value.what and caught.value.fix
