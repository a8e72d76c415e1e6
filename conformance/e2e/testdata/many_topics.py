"""Subscribes to two topics in one call, publishes to both and to a third, and loops for ever.

Topics begin with '/': their first level is empty. Usage: many_topics.py HOST PORT
"""
import sys

from client import new_client

TOPICS = ["/wjw/znqs/123456789/1/up", "/wjw/znqs/123456789/2/up"]


def on_connect(client, userdata, flags, rc):
    print("connected", rc, flush=True)
    client.subscribe([(TOPICS[0], 0), (TOPICS[1], 1)])


def on_subscribe(client, userdata, mid, granted_qos):
    print("granted", *granted_qos, flush=True)
    for topic in ["/wjw/znqs/123456789/1/down"] + TOPICS:
        client.publish(topic, payload="hello", qos=0)


def on_message(client, userdata, msg):
    print(msg.topic, msg.payload.decode(), msg.qos, int(msg.retain), flush=True)
    if msg.topic == TOPICS[1]:
        client.disconnect()


client = new_client("many-topics")
client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect(sys.argv[1], int(sys.argv[2]), 60)
client.loop_forever()
