"""What a command from afar does: asks the running box, or the model store, or the uplink itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import DeviceError
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.store import open_store
from edge_runtime.process.control import ask
from edge_runtime.sync.box import RunWatch
from edge_runtime.sync.commands.allowed import Handler
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.sparkplug.runner import SparkplugRunner

SWITCH_WITHIN_S = 60.0  # a model is loaded in a child, tested on its golden pictures, loaded again and warmed up


class Asked(Protocol):
    """The uplink as commands see it."""

    @property
    def records(self) -> Delivery: ...

    @property
    def tags(self) -> SparkplugRunner | None: ...

    def status(self) -> dict[str, Any]: ...


def handlers(cfg: EdgeConfig, run: RunWatch, uplink: Asked) -> Mapping[str, Handler]:
    """One for each command there is, see `allowed.py`."""

    def to_run(do: str, timeout_s: float = 5.0, **words: Any) -> Any:
        return ask(run.socket, do, timeout_s, by="cloud", **words)

    return {
        "status": lambda args: {"run": run.look().to_json(), "sync": uplink.status()},
        "rebirth": lambda args: _rebirth(uplink),
        "automation": lambda args: to_run("automation", degree=args["degree"], only_down=True),
        "stage": lambda args: _stage(cfg, args["model"]),
        "rollback": lambda args: to_run("model", SWITCH_WITHIN_S, verb="rollback"),
        "evidence": lambda args: {"file": uplink.records.request_evidence(args["part"])},
    }


def _rebirth(uplink: Asked) -> dict[str, Any]:
    if uplink.tags is None:
        raise DeviceError("this box has no live tags: set sync.sparkplug.enabled")
    uplink.tags.rebirth()
    return {"births": uplink.tags.node.births}


def _stage(cfg: EdgeConfig, model: str) -> dict[str, Any]:
    slot = Slots(open_store(cfg)).stage(model, by="cloud", why="a command from afar")
    return dict(slot.versions())
