"""Client getGame subscribes with a persistent session and leaves; three messages come meanwhile; it returns.

Usage: persistent.py HOST PORT
"""
import sys
import threading

from client import new_client

host, port = sys.argv[1], int(sys.argv[2])
subscribed, complete = threading.Event(), threading.Event()
seen = []


def on_connect(client, userdata, flags, rc):
    print("session present", flags["session present"], flush=True)
    if not flags["session present"]:
        client.subscribe("game", 1)


def on_message(client, userdata, msg):
    seen.append(msg.payload.decode())
    if len(seen) == 3:
        complete.set()


def visit(until):
    client = new_client("getGame", clean_session=False)
    client.on_connect = on_connect
    client.on_subscribe = lambda client, userdata, mid, granted: subscribed.set()
    client.on_message = on_message
    client.connect(host, port, 60)
    client.loop_start()
    ok = until.wait(20)
    client.disconnect()
    client.loop_stop()
    return ok


if not visit(subscribed):
    sys.exit("not subscribed")
publisher = new_client("setGame")
publisher.connect(host, port, 60)
publisher.loop_start()
for n in range(3):
    publisher.publish("game", "round %d" % n, qos=1).wait_for_publish()
publisher.disconnect()
publisher.loop_stop()
if not visit(complete):
    sys.exit("only %s" % seen)
print("\n".join(seen))
