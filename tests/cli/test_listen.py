"""`listen`, `line`, `io microphones` and `predict` of speech, as people and scripts call them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from edge_runtime.capture.microphones import drivers as microphones_module
from edge_runtime.capture.microphones.microphone import MicrophoneDevice
from edge_runtime.cli.io_cmds import io
from edge_runtime.cli.line_cmds import line
from edge_runtime.cli.listen_cmd import heard_line, listen, moment_line
from edge_runtime.cli.main import Session
from edge_runtime.cli.predict_cmd import predict
from edge_runtime.cli.search_cmd import search
from edge_runtime.cli.status_cmd import voice_lines
from edge_runtime.commissioning.listen import Heard, Moment
from edge_runtime.core.errors import DeviceError, UsageError
from edge_runtime.features.speech_clip import as_float, speech_span
from edge_runtime.process.control import ControlServer
from tests.lines.voice_rig import RATE_HZ, burst, golden, keyword_bundle, quiet, write_wav


@pytest.fixture
def session(tmp_path):
    return Session("embedded", [f"recording.state_dir={json.dumps(str(tmp_path))}"])


def run(command, session, *args, **more):
    result = CliRunner().invoke(command, [str(arg) for arg in args], obj=session, **more)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def told(result):
    return json.loads(result.stdout[result.stdout.index("{") :])


# -- listen ------------------------------------------------------------------------------------------------------------


def test_a_recording_is_understood_without_a_running_box(session, tmp_path):
    bundle = keyword_bundle()
    pcm = np.concatenate([quiet(1), golden(bundle, "reject"), quiet(1), golden(bundle, "seven"), quiet(1)])
    wav = write_wav(tmp_path / "x.wav", pcm)
    document = told(run(listen, session, "--file", wav, "--json"))
    reject, seven = document["utterances"]
    assert (reject["transcript"], reject["command"], seven["transcript"], seven["command"]) == (
        "reject",
        "reject",
        "seven",
        None,
    )
    assert 1.0 < reject["start_s"] < reject["end_s"] < seven["start_s"] < document["seconds"]
    assert len(reject["scores"]) == 5 and next(iter(reject["scores"])) == "reject"
    assert document["is_latched"] is False and document["wakes"] == 0
    text = run(listen, session, "--file", wav)
    assert "reject" in text.stdout and "2 utterances" in text.stderr


def from_its_first_sample(word, noise_db):
    """A golden recording cut to the word itself, in a room whose hiss is so far below it, and a second of that room."""
    pcm = as_float(golden(keyword_bundle(), word))
    first, last = speech_span(pcm, RATE_HZ)
    cut = np.concatenate([pcm[first:last], np.zeros(RATE_HZ, np.float32)])
    hiss = np.random.default_rng(3).normal(0, pcm[first:last].std() * 10 ** (noise_db / 20), cut.size)
    return np.rint((cut + hiss) * 20_000).astype(np.int16), (last - first) / RATE_HZ


@pytest.mark.parametrize("noise_db", [-60, -20])
@pytest.mark.parametrize("word", ["accept", "reject", "stop_line", "alpha", "seven"])
def test_a_word_at_the_first_sample_of_a_file_is_heard_by_listen_and_by_predict(session, tmp_path, word, noise_db):
    pcm, seconds = from_its_first_sample(word, noise_db)
    wav = write_wav(tmp_path / "x.wav", pcm)
    document = told(run(listen, session, "--file", wav, "--json"))
    (heard,) = document["utterances"]
    assert heard["transcript"] == word.replace("_", " ")
    assert heard["start_s"] == pytest.approx(0.0, abs=0.15) and heard["start_s"] >= 0.0
    assert heard["end_s"] == pytest.approx(seconds, abs=0.25)
    (said,) = json.loads(run(predict, session, wav, "--model", "commands-embed", "--json").stdout)
    assert said["transcript"] == word.replace("_", " ") and "utterances" not in said


def test_a_code_one_symbol_off_is_told_by_listen_and_by_predict(session, tmp_path):
    (tmp_path / "c.csv").write_text("code,name\nA78,seal\nA177,ring\nB5,seven alpha\n")
    run(search, session, "--import", tmp_path / "c.csv")
    words = [golden(keyword_bundle(), word)[4000:-4000] for word in ("alpha", "seven", "seven")]
    wav = write_wav(tmp_path / "code.wav", np.concatenate([part for word in words for part in (word, quiet(0.1))]))
    (heard,) = told(run(listen, session, "--file", wav, "--json"))["utterances"]
    (said,) = json.loads(run(predict, session, wav, "--model", "commands-embed", "--json").stdout)
    assert (heard["transcript"], heard["results"], heard["near"]) == ("alpha seven seven", [], ["A78", "A177"])
    assert (said["results"], said["near"]) == ([], ["A78", "A177"])
    assert "no A77; one symbol off: A78, A177" in run(listen, session, "--file", wav).stdout
    assert "no A77; one symbol off: A78, A177" in run(predict, session, wav, "--model", "commands-embed").stdout


def test_without_a_bundle_it_still_shows_level_and_speech(session, tmp_path):
    session.settings = (*session.settings, "voice.model='nonsense'", "voice.wake='hey_nobody'")
    wav = write_wav(tmp_path / "x.wav", np.concatenate([quiet(1), burst(), quiet(1)]))
    result = run(listen, session, "--file", wav, "--json")
    document = told(result)
    assert [heard["transcript"] for heard in document["utterances"]] == [""]
    assert document["floor_dbfs"] < -60
    assert any("no words" in missing for missing in document["missing"])
    assert any("no wake word" in missing for missing in document["missing"])


def test_it_ends_after_the_seconds_that_were_asked_for(session):
    session.settings = (*session.settings, "microphone.driver='sim'", "voice.model='nonsense'", "voice.wake=''")
    document = told(run(listen, session, "--seconds", "0.5", "--json"))
    assert 0.5 <= document["seconds"] < 1.0


@pytest.mark.parametrize(
    ("args", "error", "sentence"),
    [
        ([], DeviceError, "set microphone.driver, or give --file"),
        (["--json"], UsageError, "--seconds N or --file"),
        (["--push", "--file", "x.wav"], UsageError, "leave out --file"),
        (["--file", "/nowhere.wav"], DeviceError, "does not exist"),
        (["--push"], DeviceError, "no edge-runtime is running here"),
    ],
)
def test_what_cannot_be_listened_to_is_a_sentence(session, args, error, sentence):
    with pytest.raises(error, match=sentence):
        run(listen, session, *args)


def test_a_file_that_is_no_sound_is_a_sentence(session, tmp_path):
    (tmp_path / "x.wav").write_text("no sound")
    with pytest.raises(DeviceError, match=r"x\.wav"):
        run(listen, session, "--file", tmp_path / "x.wav")


class Voice:
    """A box's end of the control socket that plays a talk to the end."""

    def __init__(self, shot, *modes):
        self.shot = shot
        self.modes = list(modes)
        self.asked = []

    def status(self, _):
        mode, requests, recent, shown = self.modes[0] if len(self.modes) == 1 else self.modes.pop(0)
        said = replace(self.shot.voice, mode=mode, says=mode, requests=requests, recent=recent, shown=shown)
        return replace(self.shot, voice=said).to_json()

    def listen(self, words):
        self.asked.append(words)
        return {"says": "listening"}


@pytest.fixture
def box(tmp_path):
    servers = []

    def start(**handlers):
        server = ControlServer(tmp_path / "control.sock", handlers)
        server.start()
        servers.append(server)

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def done(real_status):
    """A request as a real box tells it, that came to its end."""
    (request, *_) = real_status.voice.recent
    return replace(request, command="reject", transcript="reject", outcome="done", reason="")


def test_push_presses_the_key_and_shows_what_came_of_it(session, box, real_status, done):
    modes = ("idle", 3, (), ()), ("listening", 3, (), ()), ("pending", 3, (), ()), ("idle", 4, (done,), ())
    voice = Voice(real_status, *modes)
    box(status=voice.status, listen=voice.listen)
    result = run(listen, session, "--push")
    assert result.exit_code == 0
    assert "reject" in result.stdout and "done" in result.stdout
    assert voice.asked[0]["by"] == "cli"


def test_push_shows_results_and_says_when_nothing_was_understood(session, box, real_status, done):
    voice = Voice(real_status, ("idle", 0, (), ()), ("listening", 0, (), ()), ("shown", 0, (), ("A742", "B118")))
    box(status=voice.status, listen=voice.listen)
    assert told(run(listen, session, "--push", "--json"))["results"] == ["A742", "B118"]
    silent = replace(done, command=None, transcript="", outcome="silent")
    voice.modes = [("idle", 0, (), ()), ("idle", 1, (silent,), ())]
    assert run(listen, session, "--push").exit_code == 1


def test_push_without_a_voice_is_a_sentence(session, box, real_status):
    box(status=lambda _: replace(real_status, voice=None).to_json())
    with pytest.raises(DeviceError, match="no voice"):
        run(listen, session, "--push")


def test_the_lines_of_the_screen():
    line_ = moment_line(Moment(1.0, -20.0, -60.0, True, 0.5, True, "restarting"))
    assert "speech" in line_ and "LATCHED" in line_ and "restarting" in line_ and "wake 0.50" in line_
    heard = Heard(1.0, 2.0, "grease", 0.8, None, "grammar", ["D02"], {"_other": 0.9})
    assert "-> D02" in heard_line(heard)


# -- status, line ------------------------------------------------------------------------------------------------------


def test_status_has_a_line_for_the_voice_and_for_a_hold(real_status, done):
    assert voice_lines(replace(real_status, voice=None)) == []
    assert "edge-runtime line resume" in voice_lines(replace(real_status, voice=None, held_by="pause"))[0]
    voice = replace(real_status.voice, mode="shown", says="grease", shown=("D02",), recent=(done,))
    (text,) = voice_lines(replace(real_status, voice=voice))
    assert text == "voice shown: grease  -> D02  last: reject (done)"


def test_hold_resume_and_automation_ask_the_box(session, box):
    asked = []

    def note(answer):
        return lambda words: asked.append(dict(words)) or answer

    box(
        hold=note({"held_by": "stop line"}),
        resume=note({"resumed": True}),
        automation=note({"before": "full", "now": "partial"}),
    )
    assert "line resume" in run(line, session, "hold").stdout
    assert run(line, session, "resume", input="n\n").exit_code == 1  # somebody is not clear
    assert run(line, session, "resume", "--yes").stdout == "goes on\n"
    assert told(run(line, session, "automation", "partial", "--json"))["now"] == "partial"
    assert [words["do"] for words in asked] == ["hold", "resume", "automation"]
    assert all(words["by"] == "cli" for words in asked)


def test_resume_of_a_line_that_runs_is_a_problem(session, box):
    box(resume=lambda _: {"resumed": False})
    assert run(line, session, "resume", "--yes").exit_code == 1


# -- io microphones ----------------------------------------------------------------------------------------------------

DEVICES = [
    MicrophoneDevice("USB PnP Audio: Mono (hw:1,0)", "ALSA", 1, 48_000, False),
    MicrophoneDevice("default", "ALSA", 2, 44_100, True),
]


@pytest.fixture
def devices(monkeypatch):
    monkeypatch.setattr(microphones_module, "list_microphones", lambda: DEVICES)


@pytest.mark.parametrize(
    ("wanted", "used", "code"), [("", "default", 0), ("usb pnp", "USB PnP Audio: Mono (hw:1,0)", 0), ("jabra", None, 1)]
)
def test_the_configured_microphone_is_marked_or_missed(session, devices, wanted, used, code):
    session.settings = (*session.settings, "microphone.driver='pyaudio'", f"microphone.device='{wanted}'")
    result = run(io, session, "microphones", "--json")
    document = told(result)
    assert result.exit_code == code
    assert [device["name"] for device in document["devices"] if device["used"]] == ([used] if used else [])
    assert document["configured"]["ready"] is (used is not None)
    text = run(io, session, "microphones").stdout
    assert "USB PnP Audio" in text and ("not there" in text) is (used is None)


def test_a_sound_system_that_does_not_answer_is_told(session, monkeypatch):
    def hangs():
        raise DeviceError("no answer within 10 s")

    monkeypatch.setattr(microphones_module, "list_microphones", hangs)
    session.settings = (*session.settings, "microphone.driver='pyaudio'")
    result = run(io, session, "microphones")
    assert result.exit_code == 1 and "no answer within 10 s" in result.stdout


def test_a_recording_that_is_not_there_is_not_ready(session, devices, tmp_path):
    session.settings = (*session.settings, "microphone.driver='wav'", f"microphone.file='{tmp_path}/no.wav'")
    assert run(io, session, "microphones").exit_code == 1


# -- predict -----------------------------------------------------------------------------------------------------------


def test_predict_prints_what_was_said(session, tmp_path):
    bundle = keyword_bundle()
    wav = write_wav(tmp_path / "reject.wav", golden(bundle, "reject"))
    spelled = [part for word in ("alpha", "seven", "seven") for part in (golden(bundle, word)[4000:-4000], quiet(0.1))]
    code = write_wav(tmp_path / "code.wav", np.concatenate(spelled))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    result = run(predict, session, wav, code, tmp_path / "empty.wav", tmp_path / "text.wav", tmp_path / "gone.wav",
                 "--model", "commands-embed", "--json")  # fmt: skip
    said, spelled_, *bad = json.loads(result.stdout)
    assert result.exit_code == 1
    assert set(said) >= {"file", "transcript", "command", "score", "results"}
    assert (said["transcript"], said["command"], said["results"]) == ("reject", "reject", [])
    assert (spelled_["transcript"], spelled_["command"]) == ("alpha seven seven", None)
    assert all(one["transcript"] is None and one["error"] for one in bad)
    assert not any(one["file"] in one["error"] for one in bad)
    text = run(predict, session, wav, "--model", "commands-embed")
    assert text.exit_code == 0 and text.stdout.startswith("reject  0.")


@pytest.mark.parametrize(
    ("pcm", "says"),
    [(np.zeros(32_000, np.int16), "digital silence"), (np.full(32_000, 50, np.int16), "one value, 50"),
     (np.tile([1, -1], 16_000).astype(np.int16), "last bit"),
     (np.sign(np.random.default_rng(1).normal(size=32_000)).astype(np.int16) * 32767, "clipped")],
    ids=["zeros", "one value", "last bit", "clipped"],
)  # fmt: skip
def test_a_recording_that_shows_nothing_is_told_by_listen_and_by_predict(session, tmp_path, pcm, says):
    keyword_bundle()
    wav = write_wav(tmp_path / "dead.wav", pcm)
    heard = run(listen, session, "--file", wav, "--json")
    document = json.loads(heard.stdout)
    assert heard.exit_code == 1 and says in document["trouble"] and document["trouble"].startswith("invalid_sound: ")
    assert not any(one["transcript"] or one["command"] for one in document["utterances"])
    judged = run(predict, session, wav, "--model", "commands-embed", "--json")
    (said,) = json.loads(judged.stdout)
    assert judged.exit_code == 1 and said["transcript"] is said["command"] is said["score"] is None
    assert said["error"].startswith("invalid_sound: ") and says in said["error"]


def test_predict_of_quiet_is_nothing_understood(session, tmp_path):
    keyword_bundle()
    wav = write_wav(tmp_path / "quiet.wav", quiet(1))
    (said,) = json.loads(run(predict, session, wav, "--model", "commands-embed", "--json").stdout)
    assert (said["transcript"], said["command"], said["score"]) == ("", None, 0.0)
