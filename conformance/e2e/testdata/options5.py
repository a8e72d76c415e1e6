"""What MQTT 5 adds to subscriptions and messages, each checked once.

Usage: options5.py HOST PORT
"""
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from client import new_client

host, port = sys.argv[1], int(sys.argv[2])


class Client:
    """A connected client that keeps what arrives."""

    def __init__(self, name):
        self.seen, self.more, self.acks = [], threading.Condition(), 0
        self.paho = new_client(name, protocol=mqtt.MQTTv5)
        self.paho.on_message = lambda client, userdata, msg: self.keep(msg)
        self.paho.on_subscribe = lambda *args: self.acknowledged()
        connected = threading.Event()
        self.paho.on_connect = lambda *args: connected.set()
        properties = Properties(PacketTypes.CONNECT)
        properties.UserProperty = ("made", "here")
        self.paho.connect(host, port, 60, properties=properties)
        self.paho.loop_start()
        assert connected.wait(20)

    def keep(self, msg):
        with self.more:
            self.seen.append(msg)
            self.more.notify()

    def acknowledged(self):
        with self.more:
            self.acks += 1
            self.more.notify()

    def subscribe(self, topic, identifier=None, **options):
        properties = Properties(PacketTypes.SUBSCRIBE)
        if identifier:
            properties.SubscriptionIdentifier = identifier
        with self.more:
            want = self.acks + 1
            self.paho.subscribe(topic, options=SubscribeOptions(qos=1, **options), properties=properties)
            assert self.more.wait_for(lambda: self.acks == want, 20)

    def publish(self, topic, payload, retain=False, **properties):
        p = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(p, name, value)
        self.paho.publish(topic, payload, qos=1, retain=retain, properties=p).wait_for_publish()

    def payloads(self, last):
        """Everything up to the message last, which other clients send when all is said."""
        with self.more:
            assert self.more.wait_for(lambda: any(m.payload == last for m in self.seen), 20), self.seen
            return [m.payload.decode() for m in self.seen]

    def end(self):
        self.paho.disconnect()
        self.paho.loop_stop()


a, b = Client("a"), Client("b")
a.subscribe("local", noLocal=True)
a.publish("local", "mine")
b.publish("local", "other")
assert a.payloads(b"other") == ["other"], "noLocal"

b.subscribe("keeps", retainAsPublished=True)
b.subscribe("clears", retainAsPublished=False)
a.publish("keeps", "kept", retain=True)
a.publish("clears", "cleared", retain=True)
b.payloads(b"cleared")
flags = {m.payload.decode(): m.retain for m in b.seen}
assert flags["kept"] and not flags["cleared"], flags

for handling, want in ((0, ["kept", "kept", "end 0"]), (1, ["kept", "end 1"]), (2, ["end 2"])):
    c = Client("handling-%d" % handling)
    for _ in range(2):  # the second time the subscription exists already
        c.subscribe("keeps", retainHandling=handling)
    c.subscribe("end")
    end = "end %d" % handling
    a.publish("end", end)
    assert c.payloads(end.encode()) == want, (handling, c.seen)
    c.end()

b.subscribe("named/+", identifier=42)
a.publish("named/1", "named", UserProperty=[("k", "1"), ("k", "2")], ContentType="text/plain",
          ResponseTopic="answer", CorrelationData=b"\x00\x01", MessageExpiryInterval=60)
b.payloads(b"named")
p = b.seen[-1].properties
assert p.SubscriptionIdentifier == [42], p
assert p.UserProperty == [("k", "1"), ("k", "2")], p
assert (p.ContentType, p.ResponseTopic, p.CorrelationData) == ("text/plain", "answer", b"\x00\x01"), p
assert 0 < p.MessageExpiryInterval <= 60, p
a.end()
b.end()
print("all as MQTT 5 says")
