"""`io`: find and test devices, one at a time and without the line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.capture.cameras.drivers import DRIVERS
from edge_runtime.cli.io_gate import gate
from edge_runtime.cli.io_plc import plc
from edge_runtime.cli.io_serial import serial
from edge_runtime.core.errors import DeviceError, UsageError
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.capture.cameras.camera import Camera
    from edge_runtime.cli.main import Session
    from edge_runtime.config.schema import CameraConfig, EdgeConfig, MicrophoneConfig
    from edge_runtime.core.messages import Frame

PICTURE_WITHIN_S = 5.0
KINDS = (".jpg", ".jpeg", ".png", ".bmp")


@click.group()
def io() -> None:
    """Find and test devices."""


io.add_command(serial)
io.add_command(plc)
io.add_command(gate)


@io.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def cameras(session: Session, as_json: bool) -> None:
    """Cameras of this box. Also the one that the station file takes; exit code 1 when that one is not there."""
    document = _survey(session.config)
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_survey_lines(document)))
    raise SystemExit(0 if document["configured"]["ready"] else 1)


@io.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def microphones(session: Session, as_json: bool) -> None:
    """Devices that can record, and the one the station file takes. Exit code 1 when that one is not there."""
    document = _microphone_survey(session.config.microphone)
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_microphone_lines(document)))
    raise SystemExit(0 if document["configured"]["ready"] else 1)


@io.command()
@click.option("--driver", type=click.Choice(list(DRIVERS)), help="Camera driver; else the station's.")
@click.option("--path", help="Folder, video file or device; else the station's.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Picture to write: FILE.jpg, .png or .bmp.")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many pictures.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def capture(session: Session, driver: str | None, path: str | None, out: Path, count: int, as_json: bool) -> None:
    """Take pictures; say how bright (0 to 255) and sharp they are. With --count 3: FILE.jpg, FILE-2.jpg, FILE-3.jpg."""
    from edge_runtime.config.load import load

    if out.suffix.lower() not in KINDS:
        raise UsageError(f"--out {out}: pictures are written as {', '.join(KINDS)}")
    settings = [*session.settings]
    if driver is not None:
        settings.append(f"camera.driver={json.dumps(driver)}")
    if path is not None:
        settings.append(f"camera.{driver or session.config.camera.driver}.path={json.dumps(path)}")
    document = _capture(load(session.config_path, settings).config, out, count)
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_capture_lines(document)))


def _microphone_survey(microphone: MicrophoneConfig) -> dict[str, Any]:
    from edge_runtime.capture.microphones.survey import ask_devices, judge

    devices, trouble = ask_devices()
    found = judge(microphone, devices, trouble)
    return {
        "configured": {
            "name": microphone.name,
            "driver": microphone.driver,
            "device": microphone.device,
            "ready": found.is_ready,
            "detail": f"{found.detail}; {found.fix}" if found.fix else found.detail,
        },
        "devices": [
            {
                "name": device.name,
                "host_api": device.host_api,
                "channels": device.channels,
                "rate_hz": device.rate_hz,
                "default": device.is_default,
                "used": device == found.used,
            }
            for device in devices
        ],
        "trouble": str(trouble or ""),
    }


def _microphone_lines(document: dict[str, Any]) -> list[str]:
    configured = document["configured"]
    mark = click.style("ready", fg="green") if configured["ready"] else click.style("not there", fg="red")
    lines = [f"{configured['name']} ({configured['driver']})  {mark}  {configured['detail']}"]
    for device in document["devices"]:
        note = "  <- used" if device["used"] else "  (default)" if device["default"] else ""
        channels = counted(device["channels"], "channel")
        lines.append(f"  {device['name']:<40} {device['host_api']}, {channels}, {device['rate_hz']} Hz{note}")
    if not document["devices"]:
        lines.append(f"  no device that can record{': ' + document['trouble'] if document['trouble'] else ''}")
    return lines


def _survey(cfg: EdgeConfig) -> dict[str, Any]:
    from edge_runtime.capture.cameras.v4l2_devices import list_devices

    camera, devices = cfg.camera, list_devices()
    cameras = [device.path for device in devices if device.takes_pictures]
    used = camera.v4l2.path or (cameras[0] if cameras else "")
    ready, detail = _readiness(camera)
    return {
        "configured": {
            "name": camera.name,
            "driver": camera.driver,
            "path": getattr(getattr(camera, camera.driver), "path", ""),
            "ready": ready,
            "detail": detail,
        },
        "devices": [
            {
                "path": device.path,
                "name": device.name,
                "pictures": device.takes_pictures,
                "permitted": device.is_readable,
                "used": camera.driver == "v4l2" and device.path == used,
            }
            for device in devices
        ],
        "drivers": {name: driver.about for name, driver in DRIVERS.items()},
    }


def _readiness(camera: CameraConfig) -> tuple[bool, str]:
    from edge_runtime.capture.cameras.drivers import find_camera

    try:
        return True, find_camera(camera)
    except DeviceError as err:
        return False, str(err)


def _survey_lines(document: dict[str, Any]) -> Iterator[str]:
    configured = document["configured"]
    mark = click.style("ok  ", fg="green") if configured["ready"] else click.style("fail", fg="red")
    yield f"{mark} {configured['name']}: driver {configured['driver']}, {configured['detail']}"
    cameras = [device for device in document["devices"] if device["pictures"]]
    others = [Path(device["path"]).name for device in document["devices"] if not device["pictures"]]
    for device in cameras:
        notes = [] if device["permitted"] else ["no permission: add the user to group video"]
        notes += ["used by this station"] if device["used"] else []
        yield f"     {device['path']}  {device['name']}" + (f"  ({', '.join(notes)})" if notes else "")
    if not cameras:
        yield "     no video device that takes pictures"
    if others:
        yield f"     {len(others)} more take none (codecs, raw receivers, metadata): {', '.join(others)}"
    for name, text in document["drivers"].items():
        yield f"     {name:<7}{text}"


def _capture(cfg: EdgeConfig, out: Path, count: int) -> dict[str, Any]:
    from edge_runtime.features.image import brightness, sharpness

    pictures: list[dict[str, Any]] = []
    stamps: list[int] = []
    with _running(cfg) as camera:
        for number in range(count):
            frame = _take(camera, number + 1)
            target = out if number == 0 else out.with_name(f"{out.stem}-{number + 1}{out.suffix}")
            _write(target, frame, cfg.recording.jpeg_quality)
            stamps.append(frame.captured_ns)
            pictures.append(
                {
                    "file": str(target),
                    "width": frame.image.shape[1],
                    "height": frame.image.shape[0],
                    "brightness": round(brightness(frame.image), 1),
                    "sharpness": round(sharpness(frame.image), 1),
                }
            )
    seconds = (stamps[-1] - stamps[0]) / 1e9
    fps = round((count - 1) / seconds, 2) if seconds > 0 else None
    return {"camera": cfg.camera.name, "driver": cfg.camera.driver, "pictures": pictures, "fps": fps}


def _capture_lines(document: dict[str, Any]) -> Iterator[str]:
    for picture in document["pictures"]:
        yield (
            f"{picture['file']}  {picture['width']}x{picture['height']}  "
            f"brightness {picture['brightness']:.0f} of 255  sharpness {picture['sharpness']:.0f}"
        )
    if document["fps"] is not None:
        yield f"{document['fps']:g} pictures/s"


@contextmanager
def _running(cfg: EdgeConfig) -> Iterator[Camera]:
    from edge_runtime.capture.cameras.drivers import open_camera
    from edge_runtime.core.clock import monotonic_ns
    from edge_runtime.simulation.renderer import lone_belt

    is_alone = cfg.camera.driver == "sim" and not cfg.camera.sim.attach
    with lone_belt(cfg.world, cfg.camera) if is_alone else nullcontext(cfg.camera) as camera_cfg:
        camera = open_camera(camera_cfg, monotonic_ns)
        camera.start()
        try:
            yield camera
        finally:
            camera.stop()


def _take(camera: Camera, number: int) -> Frame:
    """One picture. A file of a folder that cannot be read is passed over, as the line does."""
    from edge_runtime.core.messages import PartKey, Trigger

    limit = time.monotonic() + PICTURE_WITHIN_S
    while time.monotonic() < limit:
        camera.trigger(Trigger(PartKey(0, number), 0, time.monotonic_ns()))
        frame = camera.read(PICTURE_WITHIN_S if camera.pairs_by != "part" else 0.5)
        if frame is not None:
            return frame
    raise DeviceError(
        f"camera '{camera.name}' takes no picture within {PICTURE_WITHIN_S:.0f} s; {camera.health().detail}"
    )


def _write(target: Path, frame: Frame, quality: int) -> None:
    import cv2
    import simplejpeg

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix.lower() in (".jpg", ".jpeg"):
            target.write_bytes(simplejpeg.encode_jpeg(frame.image, quality=quality, colorspace="RGB"))
        else:
            _, data = cv2.imencode(target.suffix.lower(), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
            target.write_bytes(data.tobytes())
    except OSError as err:
        raise UsageError(f"--out {target}: cannot be written: {err.strerror}") from err
