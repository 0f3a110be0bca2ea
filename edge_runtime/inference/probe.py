"""What is in this model file, and does it run? Asked of a child process, so that any file may be asked about."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.sandbox import Child
from edge_runtime.process.child import Limits

CHILD = "edge_runtime.inference.probe_child"


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """`problem` is empty when the model loaded and ran; otherwise it is why not, and the numbers are absent."""

    file: str
    problem: str = ""
    bytes: int = 0
    sha256: str = ""
    runtime: str = ""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    operators: dict[str, int] = field(default_factory=dict)
    delegated: bool = False
    load_ms: float = 0.0
    median_ms: float = 0.0
    runs: int = 0
    rss_mb: float = 0.0
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problem

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def probe(
    path: str | Path,
    *,
    threads: int = 1,
    delegate: str = "",
    runtime: str = "auto",
    seconds: float = 1.0,
    limits: Limits | None = None,
    child: Child | None = None,
) -> ProbeReport:
    """Load and run any file in a child with limits. Never raises because of the file.

    seconds: how long it is timed. child: one of `new_child`, to ask about many files without a start for each.
    """
    request = {
        "path": str(Path(path).absolute()),
        "threads": threads,
        "delegate": delegate,
        "runtime": runtime,
        "seconds": seconds,
    }
    own = child or new_child(limits)
    try:
        return ProbeReport(file=str(path), **own.ask(request))
    except ModelError as err:
        return ProbeReport(file=str(path), problem=str(err).removeprefix(f"{request['path']}: "))
    finally:
        if child is None:
            own.close()


def new_child(limits: Limits | None = None) -> Child:
    """A child for many probes; close it, or use it as a context manager."""
    return Child(CHILD, limits)
