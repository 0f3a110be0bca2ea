"""The controller's firmware in portable C, and the scripts that generate its header and build it."""
