"""A device sends readings ten times a second; a subscriber on devices/+/messages prints them.

User properties are given too, though the client speaks 3.1.1. Usage: stream.py HOST PORT COUNT
"""
import json
import sys
import threading
import time

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from client import new_client

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
subscribed, complete = threading.Event(), threading.Event()
seen = []


def on_message(client, userdata, msg):
    seen.append((msg.topic, json.loads(msg.payload)))
    if len(seen) == count:
        complete.set()


subscriber = new_client("panel")
subscriber.on_connect = lambda client, userdata, flags, rc: client.subscribe("devices/+/messages", 1)
subscriber.on_subscribe = lambda *args: subscribed.set()
subscriber.on_message = on_message
subscriber.connect(host, port, 60)
subscriber.loop_start()
assert subscribed.wait(20)

device = new_client("device_001")
device.connect(host, port, 60)
device.loop_start()
properties = Properties(PacketTypes.PUBLISH)
properties.UserProperty = ("made", "here")
for n in range(count):
    device.publish("devices/device_001/messages", json.dumps({"temperature": 30, "humidity": 20}), qos=1, properties=properties)
    time.sleep(0.1)
assert complete.wait(20), seen
for client in (device, subscriber):
    client.disconnect()
    client.loop_stop()
assert all(m == ("devices/device_001/messages", {"temperature": 30, "humidity": 20}) for m in seen), seen
print(len(seen), "readings")
