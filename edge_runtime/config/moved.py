"""Keys of earlier releases: a station file that has them loads with the same meaning, and is told where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVERY_DRIVER = ""

# old key -> where it belongs, by camera.driver
MOVED: Mapping[str, Mapping[str, str]] = {
    "camera.path": {
        "folder": "camera.folder.path",
        "video": "camera.video.path",
        "v4l2": "camera.v4l2.path",
    },
    "world.attach": {EVERY_DRIVER: "camera.sim.attach"},
}


def move_old_keys(tree: dict[str, Any], given: dict[str, str], *, winner: str) -> list[str]:
    """Move old keys to their places in the raw station and in `given`; a sentence for each.

    winner: whose old key stands above what the new place already holds; else the new one is meant. A key that means
    nothing to the camera's driver stays, see `drop_old_keys`.
    """
    told = []
    for old, homes in MOVED.items():
        camera = tree.get("camera")
        driver = camera.get("driver", "sim") if isinstance(camera, dict) else "sim"
        new = homes.get(EVERY_DRIVER) or homes.get(str(driver))
        if new is None or not _has(tree, old) or (node := _section(tree, new)) is None:
            continue
        value, origin, last = _take(tree, old), given.pop(old), new.rpartition(".")[2]
        if origin == winner or last not in node:
            node[last], given[new] = value, origin
        told.append(f"{origin}: {old} is {new} now: write it so")
    return told


def drop_old_keys(tree: dict[str, Any], given: dict[str, str]) -> list[str]:
    """Take out old keys that are left; a sentence for each."""
    found = [old for old in MOVED if _has(tree, old)]
    for old in found:
        _take(tree, old)
    return [f"{given.pop(old)}: {old} means nothing to this camera.driver: take it out" for old in found]


def _has(tree: Mapping[str, Any], key: str) -> bool:
    section, _, last = key.rpartition(".")
    node = tree.get(section)
    return isinstance(node, dict) and last in node and not isinstance(node[last], dict)


def _take(tree: Mapping[str, Any], key: str) -> Any:
    section, _, last = key.rpartition(".")
    return tree[section].pop(last)


def _section(tree: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The section that a key stands in, made where it is missing; None where something else is in its place."""
    node: Any = tree
    for name in key.split(".")[:-1]:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            return None
    found: dict[str, Any] = node
    return found
