"""What an RS-485 adapter hears of our own sending: taken out of the input, and told when the station says otherwise.

Some adapters hear what they send and some do not; `controller.rs485_echo` says which kind is fitted. What comes back
says it too: our own bytes, all of them, are an echo, and a good frame in their place says that there is none. So bytes
that may be either are held back until they are told apart, a wrong setting costs a sentence to the technician and no
part, and another adapter is noticed as soon as it is plugged in. The one frame that looks like its echo is the answer
to the write of a single register: there what was heard before decides, and until then the setting.
"""

from __future__ import annotations

SURE = 3  # exchanges in a row without an echo; a single one may have been lost to noise


class Echo:
    """is_set: what the station says. `sent` at each sending, `strip` over what is heard, `answered` at each frame."""

    def __init__(self, is_set: bool) -> None:
        self.dropped = 0  # bytes
        self.broken = 0  # echoes that came back damaged: two senders at once
        self._is_set = is_set
        self._is_heard: bool | None = None  # None until the adapter has shown it
        self._own = b""  # of which `held` bytes were heard so far
        self._held = 0
        self._awaited = 0  # bytes of the echo that the next frame must not come before; 0 when it says nothing
        self._missed = 0  # in a row

    @property
    def is_likely(self) -> bool:
        """Whether what we say comes back, as far as is known."""
        return self._is_set if self._is_heard is None else self._is_heard

    @property
    def may_come(self) -> bool:
        """Whether what we say may come back: all but an adapter that has shown that it does not echo."""
        return self._is_set or self._is_heard is not False

    @property
    def problem(self) -> str:
        """What to set in the station file; empty while it fits."""
        if self.is_likely == self._is_set:
            return ""
        does, value = ("echoes", "true") if self._is_heard else ("does not echo", "false")
        return f"the adapter {does}: set controller.rs485_echo = {value}"

    @property
    def held(self) -> int:
        """Bytes held back because they may be an echo or not."""
        return self._held

    def sent(self, data: bytes, *, is_like_answer: bool = False) -> None:
        """This was sent. is_like_answer: the far side may say the very same, so that it proves nothing."""
        self.expire()
        self._awaited = 0 if is_like_answer else len(data)
        if self.is_likely or not is_like_answer:
            self._own = data

    def expire(self) -> None:
        """It is too late for an echo; what was held back is dropped."""
        self._own, self._held = b"", 0

    def forget(self) -> None:
        """The port was opened anew: it may be another adapter."""
        self.expire()
        self._is_heard, self._awaited, self._missed = None, 0, 0

    def strip(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back, is not our own."""
        own = self._own
        heard = own[: self._held] + data
        if own.startswith(heard) and len(heard) < len(own):
            self._held = len(heard)
            return b""
        self.expire()
        if not own or not heard.startswith(own):
            self.broken += bool(own) and self.is_likely
            return heard
        self.dropped += len(own)
        if self._awaited:
            self.heard()
        return heard[len(own) :]

    def heard(self) -> None:
        """Our own sending came back."""
        self._is_heard, self._awaited, self._missed = True, 0, 0

    def answered(self, noise: int) -> None:
        """A good frame came behind `noise` bytes that were none. Fewer than we sent are no damaged echo."""
        if noise < self._awaited:
            self._missed += 1
            if self._missed >= SURE:
                self._is_heard = False
        self._awaited = 0
