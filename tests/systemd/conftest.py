"""A real systemd to try the unit on: a throw-away container over this machine's own root, up in a second.

systemd-nspawn over an overlay whose upper layer is in memory: nothing that happens inside reaches the machine. The
mounts live in a mount namespace of their own and go with it, whichever way the test ends. Not enforced inside, so not
tested here: MemoryMax and the device list (their controllers are read-only in a container).
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edge_runtime.modelstore.bundle import seal_bundle
from tests.support.waiting import seconds_until

ROOT = Path(__file__).parents[2]
UNIT = "edge-runtime-run.service"
SYNC_UNIT = "edge-runtime-sync.service"
SERVE_UNIT = "edge-runtime-serve.service"
UNDER_TEST = "/opt/under-test"  # interpreter, libraries, sources and model, all read-only
LOST_GROUP = "status=219/CGROUP"  # of a process that ended before it began (systemd.exec(5))
STATION = "/etc/edge-runtime/station.toml"

# Small pictures and few of them: drawing parts is what costs most on a busy machine.
GOOD_STATION = f"""
[camera]
width = 320
height = 180
[world]
parts_per_s = 4.0
[model]
name = "tiny@1"
store = "{UNDER_TEST}/models"
"""

# The interpreter may live in a home folder, which the unit hides: it is bound elsewhere and told where it is.
PYTHON = f"""#!/bin/sh
export LD_LIBRARY_PATH={UNDER_TEST}/python/lib PYTHONPATH={UNDER_TEST}/source:{UNDER_TEST}/site
export PYTHONDONTWRITEBYTECODE=1
exec {UNDER_TEST}/python/bin/{Path(sys.executable).resolve().name} -P "$@"
"""
PROGRAM = PYTHON.replace('"$@"', '-m edge_runtime "$@"')

# $1: empty folder, $2: folder to copy over the root, rest: words for systemd-nspawn
START = """
set -eu
folder=$1; extra=$2; shift 2
mount -t tmpfs -o size=1g tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
root=$folder/root
rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/machine-id" "$root/etc/edge-runtime" "$root/opt/edge-runtime"
rm -rf "$root/var/lib/edge-runtime" "$root/etc/systemd/system/edge-runtime-"* "$root/etc/resolv.conf"
: > "$root/etc/fstab"; : > "$root/etc/machine-id"
cp -r "$extra/." "$root/"
exec systemd-nspawn -D "$root" "$@"
"""


class Container:
    """A booted container. Every wait has a limit; `stop` may be called at any time."""

    unit, sync_unit, serve_unit, station = UNIT, SYNC_UNIT, SERVE_UNIT, STATION
    source, python = f"{UNDER_TEST}/source", f"{UNDER_TEST}/python3"
    model = f"{UNDER_TEST}/models/tiny/1"

    def __init__(self, log: Path, command: Sequence[str | Path], before: Sequence[str] = ()) -> None:
        """command: becomes systemd-nspawn; before: words in front of every command inside."""
        self._log = log
        self._before = before
        # --pdeathsig TERM: should the tests be killed, the container powers off by itself
        alone = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]
        with self._log.open("w") as output:
            self._nspawn = subprocess.Popen(
                [*alone, *map(str, command), "--console=pipe", "systemd.unit=multi-user.target"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._leader: int | None = None

    def wait_booted(self) -> None:
        """Raises RuntimeError when the machine does not let us have one."""
        self.until(self._is_booted, 40, "boot")

    def _is_booted(self) -> bool:
        if self._nspawn.poll() is not None:
            raise RuntimeError(f"systemd-nspawn ended: {self._log.read_text().strip()[-500:]}")
        self._leader = self._find_leader()  # the first child may be a helper: look again each time
        state = self.run("systemctl", "is-system-running").stdout.strip() if self._leader else ""
        return state in ("running", "degraded")

    def run(self, *command: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """A command inside, as root. Its exit code is the caller's to look at."""
        return subprocess.run(
            ["nsenter", "--target", str(self._leader), "--all", "--", *self._before, *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def good(self, *command: str, timeout_s: float = 30.0) -> str:
        """What a command inside prints; it must succeed."""
        done = self.run(*command, timeout_s=timeout_s)
        if done.returncode != 0:
            self._fail(done)
        return done.stdout

    def restart(self, unit: str = UNIT, timeout_s: float = 60.0) -> None:
        """Start a unit anew; it must come up.

        Where the host still has the old control groups, systemd 252 now and then takes the group away that it has just
        made for a unit, before the first process is in it: that try does not count.
        """
        for _ in range(3):
            before = self.journal(unit).count(LOST_GROUP)
            done = self.run("systemctl", "restart", unit, timeout_s=timeout_s)
            if done.returncode == 0:
                return
            if self.journal(unit).count(LOST_GROUP) == before:
                break
        self._fail(done)

    def _fail(self, done: subprocess.CompletedProcess[str]) -> None:
        told = self.run("journalctl", "--no-pager", "--output", "cat", "--lines", "40").stdout
        pytest.fail(f"{shlex.join(done.args)}: {done.returncode}\n{done.stdout}\n{done.stderr}\njournal:\n{told}")

    def write(self, path: str, text: str) -> None:
        outside = Path(f"/proc/{self._leader}/root{path}")
        outside.parent.mkdir(parents=True, exist_ok=True)
        outside.write_text(textwrap.dedent(text))

    def show(self, *properties: str, unit: str = UNIT) -> dict[str, str]:
        lines = self.good("systemctl", "show", unit, "--property", ",".join(properties)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, unit: str = UNIT) -> str:
        self.good("journalctl", "--sync")
        return self.good("journalctl", "--unit", unit, "--no-pager", "--output", "cat")

    def stop(self) -> None:
        """Power off; by force if it does not. Ends only what this object started."""
        leader = self._find_leader()
        if self._nspawn.poll() is None and leader is not None:
            try:
                os.kill(leader, signal.SIGRTMIN + 4)  # systemd(1): power off
                self._nspawn.wait(15)
            except subprocess.TimeoutExpired:
                os.kill(leader, signal.SIGKILL)
        try:
            self._nspawn.wait(5)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()

    def _find_leader(self) -> int | None:
        pid = self._nspawn.pid
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if name == "systemd-nspawn" and children else None

    @staticmethod
    def until(is_true: Callable[[], bool], limit_s: float, what: str) -> float:
        """Wait for a condition; how many seconds it took."""
        return seconds_until(is_true, limit_s, what)


@pytest.fixture(scope="session")
def container_class() -> type[Container]:
    return Container


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A booted machine with the program under test in it, and nothing installed."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for tool in ("systemd-nspawn", "nsenter", "unshare", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (apt-get install systemd-container util-linux)")
    folder = tmp_path_factory.mktemp("container")
    models = folder / "models"
    _make_model(models / "tiny" / "1")
    extra = folder / "extra"
    for path, text in ((f"{UNDER_TEST}/python3", PYTHON), ("/opt/edge-runtime/bin/edge-runtime", PROGRAM)):
        program = extra / path.lstrip("/")
        program.parent.mkdir(parents=True)
        program.write_text(text)
        program.chmod(0o755)
    for place in (folder, *extra.rglob("*")):
        if place.is_dir():
            place.chmod(0o755)
    binds = [
        (Path(sys.base_prefix), f"{UNDER_TEST}/python"),
        (Path(sysconfig.get_path("purelib")), f"{UNDER_TEST}/site"),
        (ROOT, f"{UNDER_TEST}/source"),
        (models, f"{UNDER_TEST}/models"),
    ]
    empty = folder / "mnt"
    empty.mkdir()
    words = ["--boot", "--quiet", "--register=no", "--keep-unit", "--private-network", "--resolv-conf=off"]
    words.append("--system-call-filter=adjtimex clock_adjtime clock_adjtime64")  # as on a machine; nspawn forbids them
    words += ["--timezone=off", "--link-journal=no", f"--machine=edge-test-{os.getpid()}"]
    words += [f"--bind-ro={source}:{target}" for source, target in binds]
    box = Container(folder / "nspawn.log", ["sh", "-c", START, "sh", empty, extra, *words])
    try:
        try:
            box.wait_booted()
        except (RuntimeError, AssertionError) as err:  # nothing of ours runs in it yet
            pytest.skip(f"no container boots here: {err}")
        yield box
    finally:
        box.stop()


@pytest.fixture(scope="session")
def installed(container: Container) -> Container:
    """The container after `tools/install`, with a light simulated station."""
    container.write(STATION, GOOD_STATION)
    container.good(f"{UNDER_TEST}/source/tools/install", "--no-python", timeout_s=90)
    return container


@pytest.fixture
def box(installed: Container) -> Container:
    """The installed container with the service up, whatever the test before did to it."""
    installed.write(STATION, GOOD_STATION)
    installed.run("rm", "-rf", f"/run/systemd/system/{UNIT}.d")
    installed.good("systemctl", "daemon-reload")
    if installed.show("ActiveState")["ActiveState"] != "active":
        installed.restart(timeout_s=90)
    return installed


def _make_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "data" / "tiny" / "bright_heat.tflite", folder / "model.tflite")
    spec = {"width": 32, "height": 32, "scale": 1 / 255}
    output = {"labels": ["bright"], "top_k": 1, "region_at": 0.5}
    about = {"name": "tiny", "version": "1", "kind": "heatmap", "licence": "Apache-2.0"}
    seal_bundle(folder, {**about, "input": spec, "output": output})
