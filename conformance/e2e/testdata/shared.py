"""Two clients with random ids share a subscription of MQTT 5; a publisher sends to its topic.

Each message must reach exactly one of them. Usage: shared.py HOST PORT
"""
import sys
import threading
import uuid

import paho.mqtt.client as mqtt

from client import new_client

host, port = sys.argv[1], int(sys.argv[2])
COUNT = 20
more, seen = threading.Condition(), {"a": [], "b": []}


def member(name):
    ready = threading.Event()

    def on_message(client, userdata, msg):
        with more:
            seen[name].append(msg.payload.decode())
            more.notify()

    client = new_client("member-%s" % uuid.uuid4(), protocol=mqtt.MQTTv5)
    client.on_connect = lambda client, *args: client.subscribe("$share/g/topic", 1)
    client.on_subscribe = lambda *args: ready.set()
    client.on_message = on_message
    client.connect(host, port, 60)
    client.loop_start()
    assert ready.wait(20), "not subscribed"
    return client


clients = [member("a"), member("b")]
publisher = new_client("publisher-%s" % uuid.uuid4(), protocol=mqtt.MQTTv5)
publisher.connect(host, port, 60)
publisher.loop_start()
for n in range(COUNT):
    publisher.publish("topic", str(n), qos=1).wait_for_publish()
with more:
    assert more.wait_for(lambda: len(seen["a"]) + len(seen["b"]) >= COUNT, 20), seen
for client in clients + [publisher]:
    client.disconnect()
    client.loop_stop()
assert sorted(seen["a"] + seen["b"], key=int) == [str(n) for n in range(COUNT)], seen
assert seen["a"] and seen["b"], seen
print("each to one of two")
