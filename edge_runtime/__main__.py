"""`python -m edge_runtime` is the same as `edge-runtime`."""

from edge_runtime.cli.main import main

main()
