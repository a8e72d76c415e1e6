"""What clients do, once: each QoS, a retained message, a session that is resumed, a will.

Usage: round.py tcp|tls|ws|wss|unix ADDRESS 31|311|5 [CA [CERT KEY]]
"""
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from client import new_client

way, address, version, tls = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
protocol = {"31": mqtt.MQTTv31, "311": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
transport = {"ws": "websockets", "wss": "websockets", "unix": "unix"}.get(way, "tcp")
place = "round-%s-%s" % (way, version)


class Client:
    """A connected client that keeps what arrives."""

    def __init__(self, name, lasting=False, will=None):
        self.lasting, self.seen, self.more = lasting, [], threading.Condition()
        self.answered = threading.Event()
        options = {"protocol": protocol, "transport": transport}
        if version != "5":
            options["clean_session"] = not lasting
        self.paho = new_client(place + "-" + name, **options)
        if tls:
            self.paho.tls_set(*tls)
        if will:
            self.paho.will_set(*will)
        self.paho.on_message = self.keep
        self.paho.on_connect = self.connected
        self.paho.on_subscribe = lambda *args: self.answered.set()
        self.connect()
        self.paho.loop_start()
        assert self.answered.wait(20), "no CONNACK"

    def connect(self):
        options = {}
        if version == "5":
            options["clean_start"], options["properties"] = not self.lasting, Properties(PacketTypes.CONNECT)
            if self.lasting:
                options["properties"].SessionExpiryInterval = 60
        if way == "unix":
            self.paho.connect(address, **options)
        else:
            host, port = address.rsplit(":", 1)
            self.paho.connect(host, int(port), 60, **options)

    def connected(self, client, userdata, flags, rc, properties=None):
        assert rc == 0, rc
        self.present = flags["session present"]
        self.answered.set()

    def keep(self, client, userdata, msg):
        with self.more:
            self.seen.append((msg.topic[len(place) + 1:], len(msg.payload), msg.qos, bool(msg.retain)))
            self.more.notify()

    def subscribe(self, topic, qos):
        self.answered.clear()
        self.paho.subscribe(place + "/" + topic, qos)
        assert self.answered.wait(20), "no SUBACK"

    def publish(self, topic, size, qos, retain=False):
        self.paho.publish(place + "/" + topic, "x" * size, qos, retain).wait_for_publish()

    def expect(self, *want):
        with self.more:
            assert self.more.wait_for(lambda: self.seen, 20), "not there: %s" % (want,)
            got = self.seen.pop(0)
            assert got == want, (got, want)

    def leave(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def die(self):
        """The connection is gone, and no DISCONNECT was sent."""
        self.paho.loop_stop()
        self.paho._sock_close()


def main():
    sub = Client("sub", lasting=True)
    sub.subscribe("#", 2)
    pub = Client("pub", will=(place + "/will", "gone", 1, False))
    for size in (0, 1, 125, 126, 70000):
        for qos in (0, 1, 2):
            pub.publish("sizes", size, qos)
            sub.expect("sizes", size, qos, False)

    pub.publish("state", 2, 1, retain=True)
    sub.expect("state", 2, 1, False)
    late = Client("late")
    late.subscribe("state", 1)
    late.expect("state", 2, 1, True)
    pub.publish("state", 0, 1, retain=True)
    late.expect("state", 0, 1, False)
    sub.expect("state", 0, 1, False)
    late.leave()

    sub.leave()
    for n in range(1, 7):  # this client hands over QoS 2 later than QoS 1
        pub.publish("away", n, 1 if n < 4 else 2)
    sub = Client("sub", lasting=True)
    assert version == "31" or sub.present, "no session"
    for n in range(1, 7):
        sub.expect("away", n, 1 if n < 4 else 2, False)

    pub.die()
    sub.expect("will", 4, 1, False)
    sub.leave()
    print("ok")


main()
