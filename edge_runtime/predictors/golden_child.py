"""The other side of `check_golden`: a process that may die with the model. Run as `python -m`."""

from __future__ import annotations

from edge_runtime.inference.sandbox import serve_child
from edge_runtime.predictors.golden import answer_child

if __name__ == "__main__":
    serve_child(answer_child)
