"""The link to the far side that the station file asks for: our reject controller, or a PLC on Modbus."""

from __future__ import annotations

from edge_runtime.config.schema import ControllerConfig, SafeAction
from firmware_bridge.host_link import HostLink
from firmware_bridge.modbus.link import PlcLink
from firmware_bridge.reject import messages as wire
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link import Link


def open_link(cfg: ControllerConfig, safe_action: SafeAction, resume: tuple[int, int] | None = None) -> HostLink:
    """The link that the station file asks for. resume: see FarSide."""
    setup = _setup(cfg, safe_action)
    if cfg.protocol == "reject":
        return Link(setup, resume=resume)
    return PlcLink(
        setup,
        role=cfg.role,
        unit=cfg.unit,
        baud=cfg.baud,
        parity=cfg.parity,
        rs485_echo=cfg.rs485_echo,
        resume=resume,
    )


def _setup(cfg: ControllerConfig, safe_action: SafeAction) -> GateSetup:
    default = wire.Verdict.ACCEPT if safe_action is SafeAction.ACCEPT else wire.Verdict.REJECT
    inputs = wire.Flags(0)
    for name in cfg.inputs:
        inputs |= wire.Flags[name.upper()]
    return GateSetup(
        cfg.decide_counts,
        cfg.fire_counts,
        cfg.pulse_counts,
        cfg.watchdog_ms,
        default,
        cfg.confirm_counts,
        debounce_counts=cfg.debounce_counts,
        inputs=inputs,
    )
