"""Judges whether what a line measures is still what it was on clean parts."""
