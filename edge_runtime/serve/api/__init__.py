"""Models asked over HTTP: the Open Inference Protocol v2, and pictures for people."""
