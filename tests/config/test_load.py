"""The station file: effective values, and errors that a technician can act on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import paths
from edge_runtime.config.load import MOST_FAULTS, leaves, load
from edge_runtime.config.paths import config_file, locate_socket, locate_state, socket_path, state_dir
from edge_runtime.config.schema import EdgeConfig, ModelStoreConfig
from edge_runtime.core.errors import ConfigError
from edge_runtime.process.credentials import credential


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(text)
    return path


def test_without_a_file_every_value_is_the_default_but_that_the_demo_takes_unsigned_models():
    loaded = load(None)
    assert loaded.config == EdgeConfig(modelstore=ModelStoreConfig(require_signature=False))
    assert loaded.given == {"modelstore.require_signature": "embedded demo station"}
    assert EdgeConfig().modelstore.require_signature


def test_file_and_command_line_are_named_as_origin(tmp_path):
    path = write(tmp_path, "[camera]\nfps = 20\nwidth = 640\n")
    loaded = load(path, ["camera.width=800", "station.name=box-7"])
    assert (loaded.config.camera.fps, loaded.config.camera.width, loaded.config.station.name) == (20, 800, "box-7")
    assert loaded.given == {"camera.fps": str(path), "camera.width": "command line", "station.name": "command line"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[camera]\nfsp = 3\n", ["unknown key 'camera.fsp'", "did you mean 'camera.fps'"]),
        ("[camera]\nfps = -1\n", ["camera.fps = -1", "more than 0", "up to 1000"]),
        ("[decision]\naccept_below = 2\n", ["decision.accept_below = 2", "from 0", "up to 1"]),
        ("[decision]\naccept_below = 0.9\nreject_at = 0.1\n", ["accept_below 0.9 is above reject_at 0.1"]),
        ("[camera]\npair_by = 'luck'\n", ["camera.pair_by = 'luck'", "'auto', 'part', 'encoder' or 'time'"]),
        ("[gate]\nx = 1\n", ["unknown key 'gate'"]),
        ("[camera\n", ["not valid TOML", "line 1"]),
        ("camera = 3\n", ["camera = 3"]),
        (f"[camera]\nwidth = {'9' * 5000}\n", ["not valid TOML"]),
        (f"[{'.'.join('a' * 5000)}]\nx = 1\n", ["nested too deeply"]),
        ('[recording]\nstate_dir = "a\\u0000b"\n', ["recording.state_dir"]),
        ("\ufeff[camera]\nfps = -1\n", ["camera.fps = -1"]),
    ],
)
def test_what_is_wrong_is_said_with_file_key_value_and_range(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    for word in words:
        assert word in message


def test_every_wrong_key_is_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, "[camera]\nfps = -1\nwidth = 1\n[decision]\nqueue_parts = 0\n"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("missing", ["nowhere/station.toml", "."])
def test_unreadable_file_is_a_sentence(tmp_path, missing):
    with pytest.raises(ConfigError, match=r"no such file|cannot be read"):
        load(tmp_path / missing)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_a_config_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("station") / "station.toml"
    path.write_bytes(data)
    try:
        load(path)
    except ConfigError as err:
        assert str(err).startswith(str(path))


def test_every_key_is_described():
    def undescribed(model, prefix=""):
        for name, info in model.model_fields.items():
            if not info.description:
                yield prefix + name
            if isinstance(info.annotation, type) and hasattr(info.annotation, "model_fields"):
                yield from undescribed(info.annotation, f"{prefix}{name}.")

    assert list(undescribed(EdgeConfig)) == []
    assert len(dict(leaves(EdgeConfig()))) > 50


def test_equal_stations_have_equal_digests(tmp_path):
    demo = "[modelstore]\nrequire_signature = false\n"
    assert load(write(tmp_path, f"{demo}[camera]\nfps = 30.0\n")).digest == load(None).digest
    assert load(None, ["camera.fps=31"]).digest != load(None).digest


def test_folders_follow_systemd_then_the_user(tmp_path):
    state = locate_state("", {"STATE_DIRECTORY": "/var/lib/edge-runtime"})
    assert state == Path("/var/lib/edge-runtime")
    assert locate_socket("", state, {}) == Path("/run/edge-runtime/control.sock")
    assert locate_socket("", state, {"RUNTIME_DIRECTORY": "/run/x"}) == Path("/run/x/control.sock")
    assert locate_state("", {"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "edge-runtime"
    assert locate_state(str(tmp_path / "s"), {"STATE_DIRECTORY": "/nowhere"}) == tmp_path / "s"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file is a file; .* recording\.state_dir"):
        locate_state(str(tmp_path / "file"))
    assert config_file("embedded", {"EDGE_RUNTIME_CONFIG": "/x.toml"}) is None
    assert config_file(None, {"EDGE_RUNTIME_CONFIG": "/x.toml"}) == Path("/x.toml")


def test_the_service_is_found_by_whoever_uses_its_station(tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    path = write(tmp_path, "[camera]\nfps = 20\n")
    monkeypatch.setattr(paths, "SYSTEM_CONFIG", path)
    loaded = load(path)
    assert state_dir(loaded.config) == Path("/var/lib/edge-runtime")
    assert socket_path(loaded.config) == Path("/run/edge-runtime/control.sock")
    assert loaded.given == {"camera.fps": str(path)}
    assert state_dir(load(None).config) != Path("/var/lib/edge-runtime")
    path.write_text(f"[recording]\nstate_dir = '{tmp_path}'\n")
    assert state_dir(load(path).config) == tmp_path
    path.write_text("recording = 3\n")
    with pytest.raises(ConfigError, match="recording = 3"):
        load(path)


def test_the_fault_of_a_whole_section_does_not_show_what_is_in_it(tmp_path):
    text = '[sync]\nevidence = "http"\nevidence_url = "https://me:secret@h/x"\npassword_file = "/keys/mqtt"\n'
    with pytest.raises(ConfigError, match="sync: evidence 'http' needs evidence_url") as caught:
        load(write(tmp_path, text))
    assert "secret" not in str(caught.value) and "/keys/mqtt" not in str(caught.value)


def text_keys():
    """Every key that takes text, with an allowed value that TOML would read as something else, where there is one."""
    for key, value in leaves(EdgeConfig()):
        if isinstance(value, str):
            yield key


@pytest.mark.parametrize("typed", ["5", "17", "3.5", "true"])
def test_a_number_typed_for_text_is_text(typed):
    assert load(None, [f"station.name={typed}"]).config.station.name == typed


def test_the_values_that_an_error_allows_are_allowed_as_they_are_typed():
    """Whatever text key: what its sentence lists can be given with --set, without quotes of quotes."""
    tried = 0
    for key in text_keys():
        try:
            load(None, [f"{key}=no-such-value"])
        except ConfigError as err:
            allowed = re.findall(r"'([^']*)'", str(err).partition("should be ")[2])
        else:
            continue
        for value in allowed:
            try:
                load(None, [f"{key}={value}"])
            except ConfigError as err:  # another key may not go with it
                assert f"{key} = " not in str(err), err
            tried += 1
    assert tried > 20


def test_text_without_quotes_in_the_file_is_told_to_be_quoted(tmp_path):
    with pytest.raises(ConfigError, match=r"sync\.protocol = 5: .*write it in quotes"):
        load(write(tmp_path, "[sync]\nprotocol = 5\n"))
    with pytest.raises(ConfigError, match=r"station\.name = 7: .*write it in quotes"):
        load(write(tmp_path, "[station]\nname = 7\n"))


@pytest.mark.parametrize("value", ['"300"', '"yes"', '"true"', '"1.5"', '""'])
def test_text_is_no_number_and_no_yes_or_no(tmp_path, value):
    """Whatever key takes a number or true and false: a value in quotes is a slip."""
    tried = 0
    for key, default in leaves(EdgeConfig()):
        if isinstance(default, (bool, int, float)):
            section, _, name = key.rpartition(".")
            with pytest.raises(ConfigError, match=f"{re.escape(key)} = .*leave out the quotes"):
                load(write(tmp_path, f"[{section}]\n{name} = {value}\n"))
            tried += 1
    assert tried > 40


def test_true_is_no_number(tmp_path):
    for key, default in leaves(EdgeConfig()):
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            with pytest.raises(ConfigError, match="true or false, not a number"):
                load(None, [f"{key}=true"])


def test_a_slip_of_toml_is_shown_with_its_line_but_no_secret(tmp_path):
    with pytest.raises(ConfigError, match=r"line 3, column 9\)\n  width = = 3\n          \^"):
        load(write(tmp_path, "[camera]\nfps = 20\nwidth = = 3\n"))
    for line in ("password_file = = 'hunter2'", "evidence_url = https://u:hunter2@x"):
        with pytest.raises(ConfigError) as told:
            load(write(tmp_path, f"[sync]\n{line}\n"))
        assert "hunter2" not in str(told.value) and "line 2" in str(told.value)


def test_a_file_full_of_unknown_keys_is_told_in_a_few_lines(tmp_path):
    with pytest.raises(ConfigError) as told:
        load(write(tmp_path, "\n".join(f"key{number} = 1" for number in range(20_000))))
    assert len(str(told.value).splitlines()) == MOST_FAULTS + 1 and "19980 more" in str(told.value)


# The version before had one place for what each camera driver understands alone.


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("[camera]\ndriver = 'folder'\npath = 'parts'\nfps = 20\n", "camera.folder.path", "parts"),
        ("[camera]\ndriver = 'video'\npath = 'belt.avi'\n", "camera.video.path", "belt.avi"),
        ("[camera]\ndriver = 'v4l2'\npath = '/dev/video2'\n", "camera.v4l2.path", "/dev/video2"),
        ("[world]\nattach = 'line/camera.sock'\nseed = 4\n", "camera.sim.attach", "line/camera.sock"),
    ],
)
def test_a_station_of_the_version_before_means_the_same_and_is_told_where_its_keys_belong(tmp_path, text, key, value):
    path = write(tmp_path, text)
    loaded = load(path)
    assert dict(leaves(loaded.config))[key] == value
    assert loaded.given[key] == str(path)
    (sentence,) = loaded.moved
    assert sentence.startswith(str(path)) and key in sentence
    assert load(path).digest == load(write(tmp_path, _as_new(text, key, value))).digest
    assert load(path).moved == ()


def _as_new(text, key, value):
    section, _, last = key.rpartition(".")
    kept = "".join(line for line in text.splitlines(keepends=True) if value not in line)
    return f"{kept}[{section}]\n{last} = '{value}'\n"


def test_an_old_key_typed_on_the_command_line_stands_above_the_file(tmp_path):
    path = write(tmp_path, "[camera]\ndriver = 'v4l2'\npath = '/dev/video0'\n")
    camera = load(path, ["camera.driver=folder", "camera.path=parts"]).config.camera
    assert (camera.driver, camera.folder.path, camera.v4l2.path) == ("folder", "parts", "/dev/video0")
    path.write_text("[camera]\ndriver = 'v4l2'\nv4l2.path = '/dev/video0'\n")
    loaded = load(path, ["camera.path=/dev/video9"])
    assert loaded.config.camera.v4l2.path == "/dev/video9" and loaded.given["camera.v4l2.path"] == "command line"


def test_a_new_key_stands_above_an_old_one(tmp_path):
    path = write(tmp_path, "[camera]\ndriver = 'folder'\npath = 'old'\nfolder.path = 'new'\n")
    assert load(path).config.camera.folder.path == "new"
    path.write_text("[camera]\npath = 'old'\n")
    assert load(path, ["camera.driver=folder", "camera.folder.path=new"]).config.camera.folder.path == "new"
    assert load(path, ["camera.driver=folder"]).config.camera.folder.path == "old"


def test_an_old_key_that_meant_nothing_still_does(tmp_path):
    loaded = load(write(tmp_path, "[camera]\npath = 'unused'\n"))
    assert loaded.config == EdgeConfig()
    assert "camera.path means nothing" in loaded.moved[0] and not loaded.given


def test_where_an_old_key_cannot_go_the_station_is_told_to_be_wrong(tmp_path):
    with pytest.raises(ConfigError, match=r"camera\.folder"):
        load(write(tmp_path, "[camera]\ndriver = 'folder'\npath = 'x'\nfolder = 3\n"))
    with pytest.raises(ConfigError, match=r"camera\.folder\.path = 3"):
        load(write(tmp_path, "[camera]\ndriver = 'folder'\npath = 3\n"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model.predictor=remote"], "needs remote.url"),
        (["model.remote.url=grpc://gpu:8001"], "must be http://HOST:PORT"),
        (["model.remote.url=http://me:secret@gpu:8000"], "without user and password"),
        (["model.remote.url=http://gpu:8000", "model.remote.token_file=/t"], "use https://"),
        (["model.remote.share=0.8"], "0.7"),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused_with_what_to_write(keys, words):
    with pytest.raises(ConfigError, match=words) as refused:
        load(None, keys)
    assert "secret" not in str(refused.value)


def test_a_token_may_be_shown_to_the_box_itself_and_over_tls():
    for url in ("http://127.0.0.1:8080", "https://gpu:8000"):
        keys = [f"model.remote.url={url}", "model.remote.token_file=/t", "model.predictor=remote"]
        assert load(None, keys).config.model.remote.url == url


@pytest.mark.parametrize(
    ("given", "word"),
    [("file", "is a file"), ("file/x", "would lie in"), ("file/x/y/z", "would lie in"), ("fine", ""), ("a/b/c", "")],
)
def test_a_state_folder_that_cannot_be_one_is_told_before_anything_runs(tmp_path: Path, given: str, word: str) -> None:
    (tmp_path / "file").write_text("")
    if not word:
        assert locate_state(str(tmp_path / given)) == tmp_path / given
        return
    with pytest.raises(ConfigError, match=word):
        locate_state(str(tmp_path / given))


@pytest.mark.parametrize("name", ["~/x", "~/a b/c", "~"])
def test_a_path_from_the_home_folder_means_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    there = tmp_path / name[2:]
    assert locate_state(name) == locate_socket(name, tmp_path, {}) == config_file(name, {}) == there
    assert config_file(None, {"EDGE_RUNTIME_CONFIG": name}) == there
    if name != "~":
        assert credential(name, {}) == credential(name, {"CREDENTIALS_DIRECTORY": "/run/x"}) == str(there)


def test_a_home_folder_that_nobody_has_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="write the whole path"):
        locate_state("~nobody-of-that-name/x")
