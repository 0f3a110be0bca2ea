"""Wiring a station file to running lines, keeping them running, and telling how they are."""
