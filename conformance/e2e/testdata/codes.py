"""Connects with 3.1.1 in one way and prints the return code that on_connect gets.

Usage: codes.py HOST PORT good|version|client-id|kept|password
"""
import sys

from client import new_client

host, port, case = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def on_connect(client, userdata, flags, rc):
    print(rc, flush=True)
    client.disconnect()


client = new_client("codes" * (1000 if case == "client-id" else 1), clean_session=case != "kept")
if case == "version":
    client._protocol = 2  # no version that there is
if case == "password":
    client.username_pw_set("operator", "wrong")
client.on_connect = on_connect
client.connect(host, port, 60)
while client.loop() == 0:  # one connection, whatever comes of it
    pass
