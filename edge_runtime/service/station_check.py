"""What a station file promises together that no single key shows: does the deadline fit the belt?"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.core.config import EdgeConfig


def remarks(cfg: EdgeConfig) -> list[str]:
    """Sentences a controls engineer should read. Empty when there is nothing to say."""
    notes = []
    travel_ms = 1000 * cfg.controller.decide_counts / cfg.world.counts_per_s
    if cfg.controller.driver == "sim" and cfg.decision.deadline_ms > travel_ms:
        notes.append(
            f"decision.deadline_ms = {cfg.decision.deadline_ms:.0f} is later than the point of decision, which a part "
            f"reaches after {travel_ms:.0f} ms (controller.decide_counts / world.counts_per_s): late parts take the "
            "controller's default"
        )
    pitch = cfg.world.counts_per_s / cfg.world.parts_per_s
    if cfg.controller.driver == "sim" and cfg.controller.pulse_counts >= 0.6 * pitch:
        notes.append(
            f"controller.pulse_counts = {cfg.controller.pulse_counts} reaches into the next part, parts are "
            f"{pitch:.0f} counts apart: the gate takes neighbours too; keep it under {0.6 * pitch:.0f}"
        )
    if cfg.decision.stage_budget_ms > cfg.decision.deadline_ms:
        notes.append(
            "decision.stage_budget_ms is above decision.deadline_ms: a hung model is noticed after the deadline"
        )
    if cfg.decision.safe_action == "accept":
        notes.append("decision.safe_action = 'accept' lets parts pass that nobody judged; reject is the safe choice")
    if cfg.camera.driver in ("folder", "video") and not Path(cfg.camera.path).exists():
        notes.append(f"camera.path {cfg.camera.path!r} does not exist")
    if cfg.camera.driver == "sim" and cfg.controller.driver != "sim":
        notes.append("camera.driver = 'sim' shows parts of a simulated belt that the real controller does not see")
    return notes
