"""edge_runtime: the runtime of a factory inspection box. Start reading at `lines/vision_line.py`."""

__version__ = "0.1.0"
