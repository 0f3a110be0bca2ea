"""The protocol of our own reject controller."""
