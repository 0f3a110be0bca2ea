"""The way up with a reject controller: HELLO until somebody answers, CONFIG unless it holds ours already, then ARM.

Every request is sent again until it is answered, a refused one slowly. An armed controller that falls is armed again,
as long as that is wanted. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable

from firmware_bridge.reject.exchange import Exchange
from firmware_bridge.reject.far_side import FarSide, Phase
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link_events import Tripped
from firmware_bridge.reject.messages import Arm, Config, Done, Flags, Hello, HelloR, Status
from firmware_bridge.reject.times import ASK_AGAIN_NS, REFUSED_AGAIN_NS


class WayUp:
    """See the module. version: of the protocol. on_up: called when the controller is armed."""

    def __init__(
        self, setup: GateSetup, version: int, far: FarSide, exchange: Exchange, on_up: Callable[[int], None]
    ) -> None:
        self.version = version
        self.ask_ns = 0  # when to ask again
        self._setup = setup
        self._far = far
        self._exchange = exchange
        self._on_up = on_up
        self._wants_armed = False
        self._asked_arm_ns = 0

    @property
    def is_asking(self) -> bool:
        return not self._far.is_talking or self._far.phase in (Phase.CONFIG, Phase.ARM)

    def begin(self, now_ns: int) -> None:
        """Ask who is there."""
        self._far.phase, self._far.detail = Phase.HELLO, "no controller answers"
        self._ask(now_ns)

    def tick(self, now_ns: int) -> None:
        """Ask again what was not answered."""
        if self.is_asking and now_ns >= self.ask_ns:
            self._ask(now_ns)

    def set_armed(self, wanted: bool, now_ns: int) -> None:
        self._wants_armed = wanted
        if self._far.phase in ((Phase.READY,) if wanted else (Phase.ARM, Phase.UP)):
            self._to_arm(now_ns)

    def met(self, hello: HelloR, now_ns: int) -> None:
        """A controller of our version says what it holds."""
        self._far.flags = hello.flags
        if hello.config_digest == self._setup.message(hello.boot_id).digest():
            self._configured(now_ns)
        else:
            self._to_config(now_ns)

    def another_boot(self, now_ns: int) -> None:
        """Somebody else speaks than the one we met, or it restarted."""
        if now_ns >= self.ask_ns:  # not for every one of a burst
            self._far.counts["boot_changes_noticed"] += 1
            self.begin(now_ns)

    def other_version(self, version: int) -> None:
        """It speaks another protocol: nothing else it says is understood."""
        if self._far.phase is Phase.REFUSED:
            return
        reason = (
            f"the controller speaks protocol {version:04x}, this release {self.version:04x}: "
            "reflash the controller with the firmware of this release"
        )
        if self._far.is_talking:
            self.lost(reason)
        self._far.refused(reason)

    def done(self, done: Done, now_ns: int) -> None:
        """The answer to CONFIG or ARM."""
        far = self._far
        far.flags = done.flags
        if done.status is Status.BAD_VALUE:
            far.refused(f"the controller refuses {self._setup}: mend [controller] in the station file")
        elif done.request == Config.KIND and far.phase is Phase.CONFIG and done.status is Status.OK:
            self._configured(now_ns)
        elif done.request == Arm.KIND and far.phase is Phase.ARM:
            if done.status is Status.NOT_CONFIGURED:
                self._to_config(now_ns)
            elif done.status is Status.BLOCKED:
                far.blocked(done.flags)
            elif (Flags.ARMED in done.flags) == self._wants_armed:
                self._configured(now_ns)

    def see_flags(self, flags: Flags, asked_ns: int, now_ns: int) -> None:
        """Its state, as the answer to a question from `asked_ns` says; one from before ARM says nothing of ARM."""
        if asked_ns <= self._asked_arm_ns:
            return
        self._far.flags = flags
        if self._far.phase is Phase.UP and Flags.ARMED not in flags:
            self._far.events.append(Tripped("disarmed", now_ns))
            self.fell(now_ns)

    def fell(self, now_ns: int) -> None:
        """The controller is not armed any more: arm it again."""
        if self._far.phase is Phase.UP:
            self._far.counts["trips"] += 1
            self._to_arm(now_ns)

    def lost(self, reason: str) -> None:
        self._exchange.forget()
        self._far.lost(reason)

    def _ask(self, now_ns: int) -> None:
        """Send the request of this phase, and note when to send it again."""
        far, send = self._far, self._exchange.send
        self.ask_ns = now_ns + (REFUSED_AGAIN_NS if far.phase is Phase.REFUSED else ASK_AGAIN_NS)
        boot_id = far.boot_id or 0
        if far.phase in (Phase.HELLO, Phase.REFUSED):
            send(Hello(self.version, self._exchange.new_nonce(now_ns)))
        elif far.phase is Phase.CONFIG:
            if Flags.ARMED in far.flags:  # an earlier host armed it with other values
                send(Arm(boot_id, False))
            send(self._setup.message(boot_id))
        elif far.phase is Phase.ARM:
            self._asked_arm_ns = now_ns
            send(Arm(boot_id, self._wants_armed))

    def _to_config(self, now_ns: int) -> None:
        self._far.phase, self._far.detail = Phase.CONFIG, "configuring"
        self._ask(now_ns)

    def _to_arm(self, now_ns: int) -> None:
        self._far.phase, self._far.detail = Phase.ARM, "arming" if self._wants_armed else "disarming"
        self._ask(now_ns)

    def _configured(self, now_ns: int) -> None:
        is_armed = Flags.ARMED in self._far.flags
        if is_armed and self._wants_armed:
            self._far.came_up(now_ns)
            self._on_up(now_ns)
        elif is_armed or self._wants_armed:
            self._to_arm(now_ns)
        else:
            self._far.phase, self._far.detail = Phase.READY, "ready, not armed"
