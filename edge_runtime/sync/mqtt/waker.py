"""Waiting for a socket, or for somebody on another thread who wants to be heard before that."""

from __future__ import annotations

import os
import select


class Waker:
    """wake: from any thread; the rest on one."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wake(self) -> None:
        """End the waiting, now or the next time."""
        try:
            os.eventfd_write(self._fd, 1)
        except OSError:
            pass  # closed already

    def wait(self, timeout_s: float, descriptor: int = -1, *, wants_write: bool = False) -> bool:
        """Whether the descriptor is ready."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if descriptor >= 0:
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if wants_write else 0))
        ready = {fd for fd, _ in poll.poll(timeout_s * 1e3)}
        if self._fd in ready:
            os.eventfd_read(self._fd)
        return descriptor in ready

    def close(self) -> None:
        """Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
