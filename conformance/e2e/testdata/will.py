"""Connects with a will and says so; then waits for a line on standard input and disconnects in order.

Usage: will.py HOST PORT ID KEEPALIVE
"""
import sys

from client import new_client

host, port, name, keepalive = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
client = new_client(name)
client.will_set("wills/" + name, "gone", qos=1, retain=False)
client.on_connect = lambda client, userdata, flags, rc: print("connected", rc, flush=True)
client.connect(host, port, keepalive)
client.loop_start()
sys.stdin.readline()
client.disconnect()
client.loop_stop()
