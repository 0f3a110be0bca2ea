"""Builds the controller's firmware: host library, ATmega328P image, Cortex-M0+ library. Standard library only.

`python -m firmware_bridge.mcu.build [host|avr|cortex-m0|check|coverage|all] [--to FOLDER]` prints where each went and
how large it is; exit 1 when a build fails, warns, or is over the limits, 2 when a tool is missing.

Debian: apt-get install gcc libc6-dev gcc-avr avr-libc gcc-arm-none-eabi cppcheck
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from firmware_bridge.mcu.avr_stack import deepest

HERE = Path(__file__).resolve().parent
PORTABLE = ("reject.c", "frames.c", "link.c", "modbus_map.c", "modbus_rtu.c")
HOST, AVR = (*PORTABLE, "host.c"), (*PORTABLE, "avr_main.c")
LIBRARY = "libreject.so"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
MAX_FLASH, MAX_RAM = 8192, 1536
AVR_IMAGES = {  # transport of avr_main.c, and its limits of flash and RAM
    "reject": (1, MAX_FLASH, MAX_RAM),  # our protocol
    "reject-modbus": (2, MAX_FLASH, MAX_RAM),
    "reject-strap": (3, 10_240, 1792),  # both, for boards whose strap chooses
}
AVR_SHRINK = (  # found by trying each: without them the image is a fifth larger
    "-flto", "-fshort-enums", "-ffunction-sections", "-fdata-sections", "-mrelax", "-mcall-prologues", "-mstrict-X",
    "-fno-ipa-cp", "-fno-inline-small-functions", "-fno-gcse", "-fno-tree-loop-im", "-fno-move-loop-invariants",
    "-fno-tree-scev-cprop", "-fno-tree-dominator-opts", "-fno-tree-coalesce-vars",
)  # fmt: skip
CPU = "atmega328p"


class BuildError(Exception):
    """The text says what to do."""


class ToolMissing(BuildError):
    pass


@dataclass(frozen=True, slots=True)
class Size:
    flash: int
    ram: int  # without the stack
    stack: int  # deepest call chain and the deepest interrupt on top of it


def compiler(name: str, package: str) -> str:
    """A compiler or tool by name. Raises ToolMissing with the package that has it."""
    found = shutil.which(name)
    if found is None:
        raise ToolMissing(f"{name} is missing: apt-get install {package}")
    return found


def host_compiler() -> str:
    """`$CC` or cc, and the C library's headers. Raises ToolMissing."""
    return os.environ.get("CC") or compiler("cc", "gcc libc6-dev")


def sources_of(names: Iterable[str]) -> list[str]:
    return [str(HERE / name) for name in names]


def library_name() -> str:
    """What the host library of these sources is called: a file of that name is never out of date."""
    digest = sha256()
    for path in sorted([*(HERE / name for name in HOST), *HERE.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"libreject-{digest.hexdigest()[:16]}.so"


def build_host(to: Path, *flags: str) -> Path:
    """The shared library `to`, put there by one rename, so that several may build it at once."""
    to.parent.mkdir(parents=True, exist_ok=True)
    command = [host_compiler(), "-O2", *WARNINGS, "-fPIC", "-shared", "-Wl,-Bsymbolic", *flags]
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".build-") as folder:
        made = Path(folder) / to.name
        _run([*command, *sources_of(HOST), "-o", str(made)])
        made.replace(to)
    return to


def build_coverage(to: Path) -> Path:
    """The host library with counters for gcov: `EDGE_REJECT_CORE` loads it, `gcov` on `to`'s folder reads them.

    Data files appear beside it when the process that loaded it ends.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    flags = [host_compiler(), "-O0", "-g", "--coverage", "-fprofile-update=atomic", *WARNINGS, "-fPIC"]
    objects = []
    for name in HOST:
        objects.append(to.parent / f"{Path(name).stem}.o")
        _run([*flags, "-c", str(HERE / name), "-o", str(objects[-1])], to.parent)
    _run([*flags, "-shared", "-Wl,-Bsymbolic", *map(str, objects), "-o", str(to)], to.parent)
    return to


def uncovered(folder: Path) -> dict[str, list[int]]:
    """Lines of the portable sources that no process ran, after `build_coverage` into `folder`."""
    missed: dict[str, list[int]] = {}
    for name in PORTABLE:
        text = _run([compiler("gcov", "gcc"), "-t", "-o", str(folder), str(HERE / name)], folder)
        rows = [line.split(":", 2) for line in text.splitlines()]
        source = ""
        for row in rows:
            if len(row) == 3 and row[1].strip() == "0" and row[2].startswith("Source:"):
                source = Path(row[2][7:]).name
            elif len(row) == 3 and row[0].strip() == "#####" and source == name:
                missed.setdefault(name, []).append(int(row[1]))
    return missed


def build_avr(folder: Path, name: str = "reject") -> tuple[Path, Size]:
    """One of AVR_IMAGES, .elf and .hex, for an ATmega328P at 16 MHz. Raises BuildError when it is over the limits."""
    folder.mkdir(parents=True, exist_ok=True)
    elf = folder / f"{name}.elf"
    transport, max_flash, max_ram = AVR_IMAGES[name]
    gcc = compiler("avr-gcc", "gcc-avr avr-libc")
    common = [gcc, f"-mmcu={CPU}", "-DF_CPU=16000000UL", f"-DTRANSPORT={transport}", "-Os", *WARNINGS, *AVR_SHRINK]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        made = Path(scratch) / "reject.elf"
        _run([*common, "-Wl,--gc-sections", *sources_of(AVR), "-o", str(made)], Path(scratch))
        size = _avr_size(made)
        made.replace(elf)
    objcopy = compiler("avr-objcopy", "binutils-avr")
    _run([objcopy, "-O", "ihex", "-R", ".eeprom", str(elf), str(elf.with_suffix(".hex"))])
    if size.flash > max_flash or size.ram + size.stack > max_ram:
        raise BuildError(
            f"the image has {size.flash} bytes of flash (at most {max_flash}) and {size.ram} of RAM with "
            f"{size.stack} of stack (together at most {max_ram}): make it smaller"
        )
    return elf, size


def build_cortex_m0(folder: Path) -> tuple[Path, Size]:
    """`libreject_m0.a`, the core for a Cortex-M0+ port of your own (port.h)."""
    folder.mkdir(parents=True, exist_ok=True)
    gcc = compiler("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    library = folder / "libreject_m0.a"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        flags = ["-mcpu=cortex-m0plus", "-mthumb", "-Os", "-ffreestanding", *WARNINGS, "-ffunction-sections"]
        _run([gcc, *flags, "-c", *sources_of(PORTABLE)], Path(scratch))
        objects = sorted(str(path) for path in Path(scratch).glob("*.o"))
        library.unlink(missing_ok=True)
        _run([compiler("arm-none-eabi-ar", "binutils-arm-none-eabi"), "rcs", str(library), *objects])
        text = _run([compiler("arm-none-eabi-size", "binutils-arm-none-eabi"), *objects])
    rows = [line.split() for line in text.splitlines()[1:]]
    return library, Size(sum(int(row[0]) for row in rows), sum(int(row[1]) + int(row[2]) for row in rows), 0)


def check_sources() -> None:
    """cppcheck over everything; raises BuildError with what it says."""
    options = ["--enable=warning,style,performance,portability", "--error-exitcode=1", "--std=c99", "--quiet"]
    options += ["--inline-suppr", "--suppress=missingIncludeSystem", f"-I{HERE}", "--suppress=unusedStructMember"]
    _run([compiler("cppcheck", "cppcheck"), *options, "-D__AVR_ATmega328P__=1", *sources_of((*HOST, "avr_main.c"))])


def _avr_size(elf: Path) -> Size:
    text = _run([compiler("avr-size", "binutils-avr"), "-A", str(elf)])
    sections = {row[0]: int(row[1]) for row in map(str.split, text.splitlines()) if len(row) == 3 and row[1].isdigit()}
    ram = sections.get(".data", 0) + sections.get(".bss", 0) + sections.get(".noinit", 0)
    return Size(sections.get(".text", 0) + sections.get(".data", 0), ram, stack_estimate(elf))


def stack_estimate(elf: Path) -> int:
    """Deepest call chain from `main`, and the deepest interrupt on top: what the instructions push and reserve."""
    return deepest(_run([compiler("avr-objdump", "binutils-avr"), "-d", str(elf)]))


def _run(command: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BuildError(f"{command[0]}: {err}") from err
    if done.returncode != 0:
        raise BuildError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _say_size(name: str, made: Path, size: Size) -> None:
    say = f"{name}: {made.name} flash {size.flash} B, RAM {size.ram} B"
    if size.stack:
        say += f" + stack {size.stack} B = {size.ram + size.stack} B"
    sys.stdout.write(say + "\n")


def _make_avr(to: Path) -> None:
    for name in AVR_IMAGES:
        _say_size("avr", *build_avr(to, name))


def _make_host(to: Path) -> None:
    sys.stdout.write(f"host: {build_host(to / LIBRARY)}\n")


def _make_coverage(to: Path) -> None:
    sys.stdout.write(f"coverage: {build_coverage(to / LIBRARY)}\n")


def _make_check(_: Path) -> None:
    check_sources()
    sys.stdout.write("check: no remark\n")


TARGETS: dict[str, Callable[[Path], None]] = {
    "host": _make_host,
    "avr": _make_avr,
    "cortex-m0": lambda to: _say_size("cortex-m0", *build_cortex_m0(to)),
    "check": _make_check,
    "coverage": _make_coverage,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the reject controller's firmware.")
    parser.add_argument("target", nargs="?", default="all", choices=[*TARGETS, "all"])
    parser.add_argument("--to", type=Path, default=HERE / "build", help="folder; default %(default)s")
    chosen = parser.parse_args(argv)
    targets = [name for name in TARGETS if name != "coverage"] if chosen.target == "all" else [chosen.target]
    worst = 0
    for name in targets:
        try:
            TARGETS[name](chosen.to.resolve())
        except BuildError as err:
            sys.stderr.write(f"{name}: {err}\n")
            worst = max(worst, 2 if isinstance(err, ToolMissing) else 1)
    return worst


if __name__ == "__main__":
    sys.exit(main())
