"""`edge-runtime serve`: the process that has the network. It may hang, die or be attacked without one late reject."""
