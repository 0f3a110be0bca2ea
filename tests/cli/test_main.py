"""The command line as people and scripts meet it: help, exit codes, one JSON document, no tracebacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edge_runtime.cli.main import COMMANDS, _globals_first, cli, main


def edge_runtime(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_runtime", *words], capture_output=True, text=True, timeout=timeout, check=False
    )


def every_command(group: click.Group = cli, path: tuple[str, ...] = ()):
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            if isinstance(command, click.Group):
                yield from every_command(command, (*path, name))
            else:
                yield (*path, name), command


def test_every_command_and_option_has_help():
    found = dict(every_command())
    assert ("run",) in found and ("config", "check") in found
    for path, command in found.items():
        assert command.help, path
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (path, option.name)


def test_help_names_every_command_without_loading_any():
    done = edge_runtime("--help")
    assert done.returncode == 0
    for name, (_, _, text) in COMMANDS.items():
        assert name in done.stdout and text.split()[0] in done.stdout


def test_status_and_help_load_neither_numpy_nor_pydantic(tmp_path):
    script = (
        "import sys\nfrom edge_runtime.cli.main import main\n"
        "try:\n    main(['status', '--config', sys.argv[1]])\nexcept SystemExit as end:\n    code = end.code\n"
        "print(code, sorted({'numpy', 'cv2', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    config = tmp_path / "s.toml"
    config.write_text(f'[recording]\nstate_dir = "{tmp_path}"\n')
    done = subprocess.run(
        [sys.executable, "-c", script, str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "1 []"
    assert "no edge-runtime is running here" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nonsense"], 2, "No such command"),
        (["run", "--parts", "0"], 2, "0 is not in the range"),
        (["config", "check", "--config", "/nowhere.toml"], 2, "no such file"),
        (["config", "check", "--set", "camera.fps=fast"], 2, "camera.fps = 'fast'"),
        (["config", "check", "--set", "nonsense"], 2, "section.key=value"),
        (["config", "check", "--set", "camera.fps.x=1"], 2, "camera.fps"),
        (["run", "--parts", "1", "--set", "camera.driver=webcam"], 2, "camera.driver"),
    ],
)
def test_wrong_usage_is_a_sentence_and_two(words, code, sentence):
    done = edge_runtime(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_refusal_with_json_is_one_document():
    done = edge_runtime("config", "check", "--json", "--set", "camera.fsp=1", "--config", "embedded")
    assert done.returncode == 2
    assert "did you mean 'camera.fps'" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    "words", [["nonsense"], ["run", "--parts", "0"], ["predict"], ["parts", "list", "--last", "-5"]]
)
def test_wrong_usage_with_json_is_one_document_too(words):
    done = edge_runtime(*words, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]


def test_config_show_tells_origin():
    done = edge_runtime("config", "show", "--json", "--config", "embedded", "--set", "camera.fps=12")
    document = json.loads(done.stdout)
    assert document["camera.fps"] == {"value": 12.0, "origin": "command line"}
    assert document["camera.width"]["origin"] == "default"
    assert done.returncode == 0


def test_config_schema_is_json_schema():
    document = json.loads(edge_runtime("config", "schema").stdout)
    assert document["properties"].keys() >= {"camera", "decision", "world"}


def test_config_check_remarks_on_what_does_not_fit():
    settings = ["--set", "decision.deadline_ms=900", "--set", "decision.safe_action=accept"]
    done = edge_runtime("config", "check", "--json", "--config", "embedded", *settings)
    remarks = " ".join(json.loads(done.stdout)["remarks"])
    assert "point of decision" in remarks and "nobody judged" in remarks


def test_globals_are_taken_from_anywhere():
    assert _globals_first(["run", "--config", "x", "--set=a.b=1", "--json"]) == [
        "--config",
        "x",
        "--set=a.b=1",
        "run",
        "--json",
    ]
    assert _globals_first(["predict", "--", "--config"]) == ["predict", "--", "--config"]
    assert _globals_first(["run", "--config"]) == ["--config", "run"]


@pytest.mark.parametrize("is_service", [True, False])
def test_a_service_that_fails_says_where_and_a_person_gets_a_sentence(monkeypatch, capsys, is_service):
    def fail(*_args, **_words):
        raise ZeroDivisionError("on a Sunday")

    monkeypatch.setattr("edge_runtime.cli.main.cli.main", fail)
    monkeypatch.delenv("EDGE_RUNTIME_DEBUG", raising=False)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1") if is_service else monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "error: unexpected ZeroDivisionError: on a Sunday" in said
    assert ("Traceback" in said) is is_service


def test_a_box_without_the_extras_still_works(tmp_path):
    """What a station without microphone and uplink installs is enough for everything else."""
    script = (
        "import sys\n"
        "extras = {'webrtcvad', 'pyaudio', 'soundfile', 'pymicro_features', 'pymicro_wakeword', 'pocketsphinx',"
        " 'gpiod', 'paho', 'cryptography'}\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in extras:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from edge_runtime.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    state = ["--config", "embedded", "--set", f"recording.state_dir={tmp_path}", "--set", "controller.fire_counts=3000",
             "--set", "controller.decide_counts=2800", "--set", "decision.deadline_ms=1200",
             "--set", "camera.width=320", "--set", "camera.height=180"]  # fmt: skip
    for words in (["models", "list", "--json"], ["run", "--parts", "3", "--json"], ["search", "oil", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *state, *words], capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, (words, done.stdout[-500:], done.stderr[-500:])
        json.loads(done.stdout)


@pytest.mark.parametrize(("typed", "meant"), [("staus", "status"), ("docter", "doctor"), ("model", "models")])
def test_a_command_mistyped_is_named(typed, meant):
    done = edge_runtime(typed)
    assert done.returncode == 2 and f"Did you mean '{meant}'?" in done.stderr


@pytest.mark.parametrize("words", [["config", "check"], ["--version"], ["config", "show", "--json"], ["status"]])
def test_a_closed_stdout_is_no_fault(words):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "edge_runtime", *words, "--config", "embedded"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert "unexpected" not in done.stderr and "Traceback" not in done.stderr


def test_a_working_folder_that_is_gone_is_no_fault(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", sys.executable, "-m", "edge_runtime", "config", "check"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, "--config", "embedded"],
        cwd=gone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_that_may_not_be_used_is_a_sentence_with_its_name(monkeypatch, capsys):
    def fail(*_args, **_words):
        Path("/proc/1/mem/x").read_bytes()

    monkeypatch.setattr("edge_runtime.cli.main.cli.main", fail)
    monkeypatch.delenv("EDGE_RUNTIME_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["predict"])
    assert ended.value.code == 1
    assert "error: /proc/1/mem/x: Not a directory; mend it" in capsys.readouterr().err


def test_config_check_tells_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    for setting, says in (
        (f"recording.state_dir={tmp_path}/file", "is a file"),
        (f"service.socket={tmp_path}/{'a' * 120}", "107 work"),
        (f"recording.state_dir={tmp_path}/{'a' * 120}", "107 work"),
    ):
        done = edge_runtime("config", "check", "--config", "embedded", "--set", setting)
        assert done.returncode == 2 and says in done.stderr, setting
