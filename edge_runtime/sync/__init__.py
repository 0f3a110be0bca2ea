"""From the journal to the cloud, in a process of its own: what happened is delivered, or counted as missing.

`feeder` copies the journal's rows into `outbox`, `records` says how a record looks, `outbox_sender` hands them to
`mqtt_link`, `evidence_upload` carries pictures, and `sync_daemon` turns the crank. Nothing here is on the line's way:
this process may hang, die or be cut off for weeks, and no part is judged one millisecond later.
"""
