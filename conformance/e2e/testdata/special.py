"""Topics with a meaning: $exclusive, $delayed, a subscription that every client gets, and a topic that is rewritten.

Usage: special.py HOST PORT 311|5
"""
import sys
import threading
import time

import paho.mqtt.client as mqtt

from client import new_client

host, port = sys.argv[1], int(sys.argv[2])
protocol = {"311": mqtt.MQTTv311, "5": mqtt.MQTTv5}[sys.argv[3]]


class Client:
    """A connected client that keeps what arrives, and what the gateway answers."""

    def __init__(self, name):
        self.seen, self.more, self.answers = [], threading.Condition(), []
        self.paho = new_client(name, protocol=protocol)
        self.paho.on_message = lambda client, userdata, msg: self.keep(self.seen, (msg.topic, msg.payload.decode()))
        self.paho.on_connect = lambda client, userdata, flags, rc, *more: self.keep(self.answers, self.number(rc))
        self.paho.on_subscribe = lambda client, userdata, mid, codes, *more: self.keep(self.answers, self.number(codes[0]))
        self.paho.on_unsubscribe = lambda *args: self.keep(self.answers, 0)
        self.paho.connect(host, port, 60)
        self.paho.loop_start()
        assert self.first(self.answers) == 0, "not connected"

    @staticmethod
    def number(code):
        return code.value if hasattr(code, "value") else int(code)

    def keep(self, where, what):
        with self.more:
            where.append(what)
            self.more.notify()

    def first(self, where):
        with self.more:
            assert self.more.wait_for(lambda: where, 20), "nothing comes"
            return where.pop(0)

    def subscribe(self, topic):
        self.paho.subscribe(topic, 1)
        return self.first(self.answers)

    def publish(self, topic, payload):
        self.paho.publish(topic, payload, qos=1).wait_for_publish()

    def end(self):
        self.paho.disconnect()
        self.paho.loop_stop()


a, b = Client("a"), Client("b")

assert a.subscribe("$exclusive/t/1") == 1
refused = b.subscribe("$exclusive/t/1")
assert refused == (0x97 if protocol == mqtt.MQTTv5 else 0x80), refused
assert b.subscribe("t/2") == 1
b.publish("t/1", "for one")
assert a.first(a.seen) == ("t/1", "for one")
a.paho.unsubscribe("$exclusive/t/1")
a.first(a.answers)
assert b.subscribe("$exclusive/t/1") == 1, "free again"
a.publish("t/1", "for the other")
assert b.first(b.seen) == ("t/1", "for the other")

assert a.subscribe("later/y") == 1
began = time.time()
b.publish("$delayed/2/later/y", "late")
assert a.first(a.seen) == ("later/y", "late")
assert 1.9 < time.time() - began < 15, time.time() - began

b.publish("a/1", "for all")
for client in (a, b):
    assert client.first(client.seen) == ("a/1", "for all"), "nobody has subscribed to a/1"

assert a.subscribe("z/y/+") == 1
b.publish("x/y/7", "rewritten")
assert a.first(a.seen) == ("z/y/7", "rewritten")
assert b.subscribe("x/y/8") == 1
a.publish("z/y/8", "both ways")
assert a.first(a.seen) == ("z/y/8", "both ways")
assert b.first(b.seen) == ("z/y/8", "both ways")
assert not a.seen and not b.seen, (a.seen, b.seen)
a.end()
b.end()
print("all as asked")
