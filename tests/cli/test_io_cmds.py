"""`io`: what a technician sees, and what a script gets."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.capture.cameras.drivers import DRIVERS
from edge_runtime.cli import io_cmds
from edge_runtime.cli.main import main


def edge(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*words])
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((32, 48, 3), 40 * (n + 1), np.uint8))
    return folder


def test_cameras_lists_drivers_and_says_that_the_simulated_one_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge(capsys, "io", "cameras")
    assert code == 0
    assert "driver sim" in out and "v4l2" in out and "folder" in out


def test_cameras_as_json_fails_for_a_camera_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "camera.driver=v4l2", "--set", "camera.v4l2.path=/dev/video99"]
    code, out, _ = edge(capsys, "io", "cameras", "--json", *words)
    document = json.loads(out)
    assert code == 1
    assert document["configured"]["ready"] is False
    assert "no camera '/dev/video99'" in document["configured"]["detail"]
    assert set(document["drivers"]) == set(DRIVERS)


@pytest.mark.parametrize(("driver", "there"), [("folder", True), ("video", False)])
def test_cameras_judges_paths_by_driver(
    capsys: pytest.CaptureFixture[str], pictures: Path, driver: str, there: bool
) -> None:
    code, _, _ = edge(
        capsys, "io", "cameras", "--set", f"camera.driver={driver}", "--set", f"camera.{driver}.path={pictures}"
    )
    assert code == (0 if there else 1)


def test_capture_writes_numbered_pictures_and_measures_them(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "shot.png"
    words = ["--driver", "folder", "--path", str(pictures), "--out", str(out), "--count", "3", "--json"]
    code, text, _ = edge(capsys, "io", "capture", *words)
    document = json.loads(text)
    assert code == 0
    assert [picture["brightness"] for picture in document["pictures"]] == [40.0, 80.0, 120.0]
    assert [Path(picture["file"]).name for picture in document["pictures"]] == ["shot.png", "shot-2.png", "shot-3.png"]
    assert cv2.imread(str(out)).shape == (32, 48, 3)
    assert document["driver"] == "folder" and document["pictures"][0]["sharpness"] == 0.0


def test_capture_from_the_simulated_line_writes_a_jpeg(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "part.jpg"
    words = ["--set", "camera.width=160", "--set", "camera.height=90", "--set", "world.parts_per_s=50"]
    code, text, _ = edge(capsys, "io", "capture", *words, "--out", str(out))
    assert code == 0 and "160x90" in text
    assert cv2.imread(str(out)).shape == (90, 160, 3)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--driver", "v4l2", "--path", "/dev/video99", "--out", "a.jpg"], 1, "no camera '/dev/video99'"),
        (["--driver", "folder", "--out", "a.jpg"], 1, "camera.folder.path is empty"),
        (["--out", "a.gif"], 2, "written as .jpg"),
        (["--driver", "magic", "--out", "a.jpg"], 2, "magic"),
        ([], 2, "--out"),
    ],
)
def test_capture_that_cannot_work_says_so_in_a_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    got, _, err = edge(capsys, "io", "capture", *words)
    assert (got, says in err) == (code, True), err
    assert "Traceback" not in err


def test_folder_without_a_readable_picture_gives_up(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_cmds, "PICTURE_WITHIN_S", 0.6)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no")
    words = ["--driver", "folder", "--path", str(tmp_path), "--out", str(tmp_path / "o.jpg")]
    code, _, err = edge(capsys, "io", "capture", *words)
    assert code == 1
    assert "takes no picture" in err and "1 unreadable" in err
