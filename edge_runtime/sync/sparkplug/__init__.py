"""The box as a Sparkplug edge node."""
