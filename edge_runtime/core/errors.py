"""Errors by what the caller does next, not by which library failed. Each names what happened, the value and the fix."""

from __future__ import annotations


class EdgeError(Exception):
    """Root of the product's own errors. The command line prints its text and no traceback.

    what: what happened, with the value. fix: what to do about it, in words that follow a semicolon; empty where `what`
    says that, or nobody knows. `str` is both.
    """

    def __init__(self, what: str = "", fix: str = "") -> None:
        super().__init__(f"{what}; {fix}" if fix else what)
        self.what, self.fix = what, fix


class ConfigError(EdgeError):
    """The station file is wrong: mend the file. Exit code 2."""


class UsageError(EdgeError):
    """The command was given something it cannot work with: call it differently. Exit code 2."""


class InstallError(EdgeError):
    """Something that belongs to the installation is not there: install it, no restart mends it. Exit code 2."""


class DeviceError(EdgeError):
    """A device is missing, busy or gone: check the cable, then reconnect."""


class ProtocolError(EdgeError):
    """The far side said something that the protocol does not allow: resend or refuse."""


class ModelError(EdgeError):
    """A model or bundle cannot be used: roll back or rebuild it."""


class StorageError(EdgeError):
    """The state folder cannot be read or written: make room or mend permissions; inspection goes on."""
