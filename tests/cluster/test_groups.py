"""Consumer groups by HTTP: any node may be asked, whoever coordinates the group."""
import json


def test_any_node_answers_for_groups(cluster):
    cluster.create("read", partitions=2)
    groups = ["group-%d" % i for i in range(9)]
    for i, group in enumerate(groups):
        node = cluster[i % 3 + 1]
        done = node.cli("group", "reset", group, "--stream", "read", "--to", "earliest", "-y")
        assert done.returncode == 0, (group, done.stderr)
    sent_on = 0
    for i in (1, 2, 3):
        listed = cluster[i].cli_json("group", "list")["groups"]
        assert sorted(g["group"] for g in listed) == groups
        mine = {g["group"] for g in listed if g["node"] == i}
        assert {g["group"] for g in listed if g["state"] is not None} == mine
        for group in groups:
            status, body, headers = cluster[i].request("GET", "/api/v1/groups/" + group)
            if group in mine:
                assert status == 200, body
                assert [o["offset"] for o in json.loads(body)["offsets"]] == [0, 0]
            else:
                sent_on += 1
                assert status == 307, (status, body)
                assert headers["Location"].endswith("/api/v1/groups/" + group)
            told = cluster[i].cli_json("group", "describe", group)
            assert told["group"] == group and told["state"] == "Empty"
    assert sent_on > 0
    for i, group in enumerate(groups):
        done = cluster[i % 3 + 1].cli("group", "delete", group, "-y")
        assert done.returncode == 0, (group, done.stderr)
    assert cluster[1].cli_json("group", "list")["groups"] == []
