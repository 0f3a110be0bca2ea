"""A host application from another project (pysparkplug): prints what it sees as JSON lines, asks for one rebirth.

python sparkplug_peer_host.py PORT GROUP NODE         ends after the node's second NBIRTH, data and death
"""

from __future__ import annotations

import json
import sys
import threading

import pysparkplug as sp

PORT, GROUP, NODE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
births, done = [], threading.Event()


def tell(client: sp.Client, message: sp.Message) -> None:
    kind, payload = message.topic.message_type.name, message.payload
    seen = {"kind": kind, "device": message.topic.device_id, "seq": getattr(payload, "seq", None)}
    if kind == "NDEATH":
        seen["metrics"] = {"bdSeq": payload.bd_seq_metric.value}
    else:
        seen["metrics"] = {metric.name: metric.value for metric in getattr(payload, "metrics", ())}
    print(json.dumps(seen, default=str), flush=True)
    if kind == "NBIRTH":
        births.append(seen)
    if kind == "DDATA" and len(births) == 1:
        births.append(None)  # ask once
        control = sp.Metric(
            timestamp=sp.get_current_timestamp(), name="Node Control/Rebirth", datatype=sp.DataType.BOOLEAN, value=True
        )
        topic = sp.Topic(message_type=sp.MessageType.NCMD, group_id=GROUP, edge_node_id=NODE)
        command = sp.NCmd(timestamp=sp.get_current_timestamp(), metrics=(control,))
        client.publish(sp.Message(topic=topic, payload=command, qos=sp.QoS.AT_MOST_ONCE, retain=False))
    if kind == "NDEATH" and len(births) > 2:
        done.set()


client = sp.Client(client_id="peer-host")
for kind in ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"):
    device = {"device_id": "+"} if kind.startswith("D") else {}
    topic = sp.Topic(message_type=sp.MessageType[kind], group_id=GROUP, edge_node_id=NODE, **device)
    client.subscribe(topic, sp.QoS.AT_LEAST_ONCE, tell)
client.connect("127.0.0.1", port=PORT)
print(json.dumps({"kind": "ready"}), flush=True)
done.wait(60)
client.disconnect()
