"""How the machine around the gate is built, as the far side is told it."""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.reject.messages import Config, Flags, Verdict

NO_INPUTS = Flags(0)


@dataclass(frozen=True, slots=True)
class GateSetup:
    """See `messages.Config`."""

    decide_counts: int
    fire_counts: int
    pulse_counts: int
    watchdog_ms: int
    default: Verdict = Verdict.REJECT
    confirm_counts: int = 0
    max_on_ms: int = 1000  # the longest sweep over half a second of belt, twice
    debounce_counts: int = 0
    inputs: Flags = NO_INPUTS  # which of BIN_FULL and AIR_LOW are wired

    def message(self, boot_id: int) -> Config:
        return Config(
            boot_id, self.decide_counts, self.fire_counts, self.pulse_counts, self.confirm_counts, self.watchdog_ms,
            self.max_on_ms, self.default, int(self.inputs), self.debounce_counts,
        )  # fmt: skip
