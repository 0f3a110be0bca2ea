"""The fleet's tools run from a checkout with nothing activated; this finds the product and the libraries they need."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEEDS = {"nats": "nats-py", "psycopg": "psycopg[binary]", "paho": "paho-mqtt", "pydantic": "pydantic"}


def use_checkout() -> None:
    """Make the product importable; go on under the checkout's own Python when this one lacks a library.

    Call it before anything else is imported. Ends the program with the name of what to install.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return
    python = ROOT / ".venv/bin/python"
    if Path(sys.executable).parent == python.parent or not python.exists():
        sys.exit(f"error: {', '.join(missing)} missing; run: {sys.executable} -m pip install {' '.join(missing)}")
    os.execv(python, [str(python), *sys.argv])
