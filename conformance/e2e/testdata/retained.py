"""A publisher sets a retained value every 20 ms; a subscriber that comes later gets the newest at once.

Prints the retain flag of the first messages of the subscriber. Usage: retained.py HOST PORT
"""
import sys
import time

from client import new_client

host, port = sys.argv[1], int(sys.argv[2])
publisher = new_client("retainer")
publisher.connect(host, port, 60)
publisher.loop_start()
for n in range(10):
    publisher.publish("state", n, qos=1, retain=True).wait_for_publish()

seen = []


def on_message(client, userdata, msg):
    seen.append((int(msg.payload), msg.retain))


subscriber = new_client("late")
subscriber.on_connect = lambda client, userdata, flags, rc: client.subscribe("state", 1)
subscriber.on_message = on_message
subscriber.connect(host, port, 60)
subscriber.loop_start()
deadline = time.time() + 20
n = 10
while len(seen) < 4 and time.time() < deadline:
    if seen:  # live ones follow the retained one
        publisher.publish("state", n, qos=1, retain=True).wait_for_publish()
        n += 1
    time.sleep(0.02)
for client in (publisher, subscriber):
    client.loop_stop()
    client.disconnect()
for value, retain in seen[:4]:
    print(value, int(retain))
