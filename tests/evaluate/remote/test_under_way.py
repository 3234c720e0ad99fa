"""What nobody knows to be paid: a try whose connection broke, and what was under way when a process was killed."""

import pytest
from endpoint import cut, hangs_up, raw, serving, status
from vinnow.evaluate.remote.cache import Cache
from vinnow.evaluate.remote.client import Client, RowError
from vinnow.evaluate.remote.config import EndpointConfig, RemoteSampling
from vinnow.evaluate.remote.reply import Message, body_of, request_key


def client_of(server, tmp_path, **fields) -> Client:
    values = {"base_url": server.url, "model": "m", "backoff_s": 0.01, "backoff_max_s": 0.02, "timeout_s": 5} | fields
    return Client(EndpointConfig.parse(values), Cache(str(tmp_path / "answers.sqlite")))


def ask(client, text="Hi"):
    return client.chat([Message("user", text)], RemoteSampling(max_tokens=50))


def test_a_try_has_the_name_of_the_one_before_unless_that_was_answered(tmp_path):
    """What the endpoint answered, be it an error, it may keep and repeat: then the next try is another request."""
    script = [hangs_up, cut(), status(409), status(500), raw(b"no JSON"), status(429)]
    with serving(*script) as server:
        client = client_of(server, tmp_path, max_tries=9)
        ask(client)
        ask(client, "other")
        names = [r["headers"]["Idempotency-Key"] for r in server.requests]
    assert names[:4] == [names[0]] * 4
    assert len({*names}) == 5
    assert all(len(name) == 64 for name in names)


@pytest.mark.parametrize("choice", ["retry", "skip"])
def test_what_was_under_way_at_a_kill_is_asked_again_or_left(choice, tmp_path):
    with serving() as server:
        fields = {"under_way": choice, "price_out": 1e6, "concurrency": 1}
        before = client_of(server, tmp_path, **fields)
        body = body_of(before.config, [Message("user", "Hi")], RemoteSampling(max_tokens=50))
        name = before.cache.send(request_key(body), 50.0)
        cache = Cache(str(tmp_path / "answers.sqlite"))
        assert cache.take_over() == 1
        client = client_of(server, tmp_path, **fields)
        assert client.purse.spent == 50  # what may have been paid is under the cap, too
        if choice == "skip":
            for _ in range(2):
                with pytest.raises(RowError, match="was under way when a run was killed") as raised:
                    ask(client)
            assert raised.value.reason == "under_way"
            assert ask(client, "other").text == "Hello."
            assert len(server.requests) == 1
        else:
            assert ask(client).text == "Hello."
            assert server.requests[0]["headers"]["Idempotency-Key"] == name
            assert client.cache.take_over() == 0
