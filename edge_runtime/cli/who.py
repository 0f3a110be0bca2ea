"""Who is at the keyboard."""

from __future__ import annotations


def who() -> str:
    """Also behind sudo: for the journal, not for a right to do anything."""
    import os
    import pwd

    uid = int(os.environ["SUDO_UID"]) if os.environ.get("SUDO_UID", "").isdigit() else os.getuid()
    try:
        return f"cli:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"cli:{uid}"
