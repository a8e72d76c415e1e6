"""One way to make a client with both generations of paho-mqtt, with the callbacks of the first."""
import paho.mqtt.client as mqtt


def new_client(client_id, **options):
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id, **options)
    return mqtt.Client(client_id, **options)
