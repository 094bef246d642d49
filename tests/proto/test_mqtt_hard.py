"""What a client can do to the server or to itself by being unlucky, careless or hostile: messages
that must not get lost for it, and memory that must not grow."""
import struct

from mqtt_client import (CONNACK, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, SUBSCRIBE, Raw,
                         ack, connect, packet, publish, subscribe, text)

CLEAN = 0x02


def expiry(seconds):
    return b"\x11" + struct.pack(">I", seconds)


def open_raw(node, client_id, flags=CLEAN, props=b""):
    raw = Raw(node.mqtt, connect(client_id, flags=flags, props=props))
    raw.connack = raw.expect(CONNACK)
    return raw


def test_packet_ids_of_a_forgotten_session_are_new_ones(node, name):
    """A session is left while its QoS 2 publish is under way and begun anew: the same packet id
    is then another message, not a repeat of the first."""
    with open_raw(node, name + "-watch") as watch:
        watch.send(subscribe(name, 1))
        watch.expect(SUBACK)
        for round_ in range(5):
            first = open_raw(node, name, props=expiry(3600))
            first.send(publish(name, b"A", 2, 1))
            first.close()
            assert watch.expect(PUBLISH).publish_parts()[3] == b"A"
            with open_raw(node, name, props=expiry(3600)) as second:
                second.send(publish(name, b"B", 2, 1))
                second.expect(PUBREC)
                assert watch.expect(PUBLISH).publish_parts()[3] == b"B", round_
                second.send(ack(PUBREL, 1))
                second.expect(PUBCOMP)


def test_packet_ids_of_a_resumed_session_are_repeats(node, name):
    with open_raw(node, name + "-watch") as watch:
        watch.send(subscribe(name, 1))
        watch.expect(SUBACK)
        first = open_raw(node, name, props=expiry(3600))
        first.send(publish(name, b"A", 2, 1))
        first.close()
        watch.expect(PUBLISH)
        with open_raw(node, name, flags=0, props=expiry(3600)) as second:
            second.send(publish(name, b"A", 2, 1, dup=1))
            second.expect(PUBREC)
            watch.silent()
