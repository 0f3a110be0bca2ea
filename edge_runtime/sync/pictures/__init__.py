"""Evidence pictures on their way to the cloud."""
