"""The way to the far side: wire codecs, link state machines, the thread that owns the port, the controller's double.

Knows nothing of the product around it, so that it can be read, tested and used alone. The far side owns the moment of
a reject: it numbers the parts, holds the verdicts, fires at an encoder count, and rejects by default.
"""
