"""The queue on the disk of what waits for the cloud."""
