"""A pipe that ends a wait in `select`: for threads that wait for a device and are also told things by others."""

from __future__ import annotations

import os

DRAIN_BYTES = 4096


class WakePipe:
    """Closed until `open`. `wake` may come from any thread, but not while it is being closed."""

    def __init__(self) -> None:
        self.fd = -1  # to wait on
        self._wake_fd = -1

    def open(self) -> None:
        self.fd, self._wake_fd = os.pipe()
        os.set_blocking(self.fd, False)

    def close(self) -> None:
        for fd in (self.fd, self._wake_fd):
            os.close(fd)
        self.fd = self._wake_fd = -1

    def wake(self) -> None:
        if self._wake_fd >= 0:
            try:
                os.write(self._wake_fd, b"!")
            except OSError:
                pass  # stopping

    def drain(self) -> None:
        """The wait is over: the next one is a new one."""
        try:
            os.read(self.fd, DRAIN_BYTES)
        except BlockingIOError:
            pass
