"""Commands from afar."""
