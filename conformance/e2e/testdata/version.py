"""Subscribes $SYS/broker/version with MQTT 3.1.1 and prints the retained answer.

Usage: version.py HOST PORT [CA CERT KEY]
"""
import sys

import paho.mqtt.client as mqtt

from client import new_client

TOPIC = "$SYS/broker/version"


def on_connect(client, userdata, flags, rc):
    print("connected", rc, flush=True)
    client.subscribe(TOPIC, 0)


def on_message(client, userdata, msg):
    print(msg.topic, int(msg.retain), msg.payload.decode(), flush=True)
    client.disconnect()


client = new_client("version", protocol=mqtt.MQTTv311)
client.username_pw_set("operator", "secret")
if len(sys.argv) > 3:
    client.tls_set(ca_certs=sys.argv[3], certfile=sys.argv[4], keyfile=sys.argv[5])
client.on_connect = on_connect
client.on_message = on_message
client.connect(sys.argv[1], int(sys.argv[2]), 60)
client.loop_forever()
