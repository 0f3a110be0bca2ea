"""The UART of a simulated controller: bytes take their time, both ways; its buffers are as large as the real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from firmware_bridge.sim.board import BAUD

BYTE_US = 10e6 / BAUD
AT_ONCE_US = 0.0  # a wire that takes no time
TX_ROOM = 192  # bytes of the transmit buffer; what finds no room is not sent
MAX_WAITING = 8192  # bytes on their way to it
PATIENCE_US = 1000.0  # its main loop looks each millisecond


class Uart:
    def __init__(self, byte_us: float) -> None:
        self.byte_us = byte_us
        self._rx = bytearray()
        self._tx: deque[bytes] = deque()
        self._out = bytearray()
        self._rx_free_us = self._tx_free_us = 0.0

    def put(self, data: bytes, now_us: float) -> int:
        """Bytes for the controller. How many found room."""
        taken = data[: MAX_WAITING - len(self._rx)]
        if not self._rx:
            self._rx_free_us = max(self._rx_free_us, now_us)
        self._rx += taken
        return len(taken)

    def hear(self, now_us: float) -> bytes:
        """What has arrived by now."""
        count = len(self._rx)
        if count and self.byte_us:
            count = min(count, int((now_us - self._rx_free_us) / self.byte_us))
            self._rx_free_us += count * self.byte_us
        if not count:
            return b""
        heard = bytes(self._rx[:count])
        del self._rx[:count]
        return heard

    def send(self, frames: Iterable[bytes], now_us: float) -> None:
        """Frames of the controller; about each millisecond, also without any."""
        if not self.byte_us:
            for frame in frames:
                self._out += frame
            return
        if not self._tx:
            self._tx_free_us = max(self._tx_free_us, now_us - PATIENCE_US)
        for frame in frames:
            if sum(map(len, self._tx)) + len(frame) <= TX_ROOM:
                self._tx.append(frame)
        while self._tx and self._tx_free_us + len(self._tx[0]) * self.byte_us <= now_us:
            self._tx_free_us += len(self._tx[0]) * self.byte_us
            self._out += self._tx.popleft()

    def take(self) -> bytes:
        """Bytes that have been sent."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def reset(self) -> None:
        """What waits to be sent is lost."""
        self._tx.clear()
