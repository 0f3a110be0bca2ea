"""From the journal to the cloud, in a process of its own: what happened is delivered, or counted as missing.

`app` is the whole uplink: `delivery` brings records (`records` -> `outbox` -> `mqtt`) and `pictures`, `sparkplug` live
tags, `commands` what the cloud asks of the box. Nothing here is on the line's way: this process may hang, die or be cut
off for weeks, and no part is judged one millisecond later.
"""
