"""Microphones behind one protocol."""
