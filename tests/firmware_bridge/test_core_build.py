"""How the core is generated, built, found and loaded, and that its tests run every line of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from firmware_bridge.mcu import build, generate
from firmware_bridge.mcu.avr_stack import deepest
from firmware_bridge.reject import core
from firmware_bridge.reject.controller import EVENT_SLOTS, EVENT_WINDOW, PART_SLOTS, Controller
from firmware_bridge.reject.core import CoreError
from firmware_bridge.reject.messages import PROTOCOL_VERSION

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORE_TESTS = ("test_core_edges.py", "test_core_modbus.py", "test_core_inputs.py", "test_controller.py")


def needs(*tools):
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} missing")


def test_the_header_is_the_message_table():
    assert generate.HEADER.read_text() == generate.header(), "run `python -m firmware_bridge.mcu.generate`"


def test_the_library_agrees_with_what_python_says_of_it():
    told = core.about(core.load())
    assert (told.part_slots, told.event_slots, told.event_window) == (PART_SLOTS, EVENT_SLOTS, EVENT_WINDOW)
    assert told.protocol_version == PROTOCOL_VERSION


@needs("avr-gcc")
@pytest.mark.parametrize("name", build.AVR_IMAGES)
def test_the_avr_image_fits(tmp_path, name):
    elf, size = build.build_avr(tmp_path, name)
    assert elf.with_suffix(".hex").read_text().endswith(":00000001FF\n")
    assert size.stack > 40  # a chain of calls and an interrupt, whatever else
    if name != "reject-strap":
        assert size.flash <= 8192 and size.ram + size.stack <= 1536


@needs("avr-gcc")
def test_an_image_over_the_limits_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(build.AVR_IMAGES, "reject", (1, 4000, 1536))
    with pytest.raises(build.BuildError, match="at most 4000"):
        build.build_avr(tmp_path)


@needs("arm-none-eabi-gcc")
def test_the_cortex_m0_library_builds_without_ram_of_its_own(tmp_path):
    library, size = build.build_cortex_m0(tmp_path)
    assert library.stat().st_size > 0 and size.flash <= 8192 and size.ram == 0


@needs("cppcheck")
def test_cppcheck_has_nothing_to_say():
    build.check_sources()


def test_the_stack_is_the_deepest_chain_and_the_deepest_interrupt():
    text = """
00000100 <main>:
 100:	cf 93       	push	r28
 102:	0e 94 00 00 	call	0x200	; 0x200 <inner>
00000200 <inner>:
 200:	cf 93       	push	r28
 202:	2a 97       	sbiw	r28, 0x0a	; 10
00000300 <__vector_1>:
 300:	1f 92       	push	r1
 302:	0f 92       	push	r0
"""
    assert deepest(text) == 2 + 2 + 1 + (2 + 1 + 10) + 2
    with pytest.raises(ValueError, match="calls itself"):
        deepest(text.replace("sbiw	r28, 0x0a	; 10", "call	0x100	; 0x100 <main>"))
    with pytest.raises(ValueError, match="through a pointer"):
        deepest(text.replace("sbiw	r28, 0x0a", "icall"))


@needs("cc")
def test_several_that_build_at_once_all_load_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(core.ENV, raising=False)
    monkeypatch.setattr(core, "HERE", tmp_path)
    found = []
    threads = [threading.Thread(target=lambda: found.append(core._find())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(found)) == 1 and len(found) == 3
    assert [path.name for path in found[0].parent.iterdir()] == [build.library_name()]
    assert core.about(core.load(found[0])).protocol_version == PROTOCOL_VERSION
    before = found[0].stat().st_mtime_ns
    assert core._find() == found[0] and found[0].stat().st_mtime_ns == before


def test_without_a_compiler_the_error_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(core.ENV, raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(core, "HERE", tmp_path)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(CoreError, match="apt-get install gcc libc6-dev"):
        core.load()


BROKEN = {
    "a compiler without headers": ("echo 'x.c:1:10: fatal error: stdint.h: No such file' >&2; exit 1", "No such file"),
    "a compiler that says nothing": ("exit 1", "gcc libc6-dev"),
    "a compiler that is none": (None, "gcc libc6-dev"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_whatever_is_wrong_with_the_compiler_it_is_one_sentence_with_the_fix(tmp_path, monkeypatch, how):
    script, told = BROKEN[how]
    compiler = tmp_path / "cc"
    if script is not None:
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(core.ENV, raising=False)
    monkeypatch.setattr(core, "HERE", tmp_path)
    with pytest.raises(CoreError, match=told) as err:
        core.load()
    assert core.FIX in str(err.value) and "\n" not in str(err.value)


def test_a_cache_that_cannot_be_written_is_named_and_not_the_compiler(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    monkeypatch.delenv(core.ENV, raising=False)
    monkeypatch.setattr(core, "HERE", tmp_path)
    with pytest.raises(CoreError, match=f"{file}/edge-runtime: Not a directory; set XDG_CACHE_HOME"):
        core.load()


def test_a_library_that_is_none_is_refused(tmp_path):
    library = tmp_path / build.LIBRARY
    library.write_bytes(b"not one")
    with pytest.raises(CoreError, match="delete it"):
        core.load(library)


@needs("cc")
def test_a_library_of_another_protocol_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "PROTOCOL_VERSION", PROTOCOL_VERSION ^ 1)
    with pytest.raises(CoreError, match=f"speaks protocol {PROTOCOL_VERSION:04x}"):
        core.load(build.build_host(tmp_path / build.LIBRARY))


def test_many_controllers_live_beside_each_other():
    controllers = [Controller(boot_id) for boot_id in range(1, 50)]
    for count, controller in enumerate(controllers):
        for at in range(count % 7):
            controller.on_eye(at, at)
    assert [controller.next_part for controller in controllers] == [1 + count % 7 for count in range(49)]


def test_what_to_build_can_be_chosen_and_a_missing_tool_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert build.main(["avr", "--to", str(tmp_path)]) == 2
    assert "apt-get install gcc-avr" in capsys.readouterr().err


@needs("cc", "gcov")
def test_every_line_of_the_core_is_run_by_its_tests(tmp_path):
    library = build.build_coverage(tmp_path / build.LIBRARY)
    tests = [str(HERE / name) for name in CORE_TESTS]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, core.ENV: str(library)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert build.uncovered(tmp_path) == {}
