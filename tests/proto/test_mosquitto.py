"""mosquitto_pub and mosquitto_sub, as a person at a terminal uses them."""
import subprocess

import pytest


def run(node, tool, *words, data=None, within=60):
    return subprocess.run([tool, "-h", "127.0.0.1", "-p", str(node.mqtt), *words], input=data,
                          capture_output=True, text=True, timeout=within, check=False)


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_publish_and_subscribe(node, name, version):
    for qos in "012":
        done = run(node, "mosquitto_pub", "-V", version, "-t", name + "/" + qos, "-m", "v" + qos,
                   "-q", qos, "-r")
        assert done.returncode == 0, done.stderr
    done = run(node, "mosquitto_sub", "-V", version, "-t", name + "/#", "-q", "2", "-v", "-C", "3",
               "-W", "30")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["%s/%s v%s" % (name, q, q) for q in "012"]


def test_many_lines(node, name):
    run(node, "mosquitto_sub", "-i", name, "-c", "-q", "1", "-t", name, "-E")
    lines = "".join("line %d\n" % i for i in range(2000))
    assert run(node, "mosquitto_pub", "-t", name, "-q", "1", "-l", data=lines).returncode == 0
    done = run(node, "mosquitto_sub", "-i", name, "-c", "-q", "1", "-t", name, "-C", "2000",
               "-W", "40")
    assert done.stdout == lines


def test_a_refused_client_is_told(make_node, name):
    node = make_node({"auth.anonymous": "off"})
    for words, code, says in (([], 5, "not authorised"),
                              (["-u", "root", "-P", "wrong"], 4, "bad user name or password")):
        done = run(node, "mosquitto_pub", "-t", name, "-m", "x", *words)
        assert done.returncode == code, done  # CONNACK's of 3.1.1
        assert says in done.stderr
