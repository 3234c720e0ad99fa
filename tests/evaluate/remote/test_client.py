"""The client over real HTTP on loopback: what it retries, what ends the job, what it pays, and that it never pays twice."""

import logging
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from endpoint import completion, cut, hangs_up, raw, says, serving, status
from vinnow.evaluate.remote.cache import Cache
from vinnow.evaluate.remote.client import Client, DownError, EndpointError, RowError
from vinnow.evaluate.remote.config import EndpointConfig, RemoteSampling
from vinnow.evaluate.remote.limits import BudgetError
from vinnow.evaluate.remote.reply import Message, Tokens
from vinnow.store.errors import InputError

KEY = "sk-Very-Secret-9876543210"


def client_of(server, tmp_path, **fields) -> Client:
    url = server if isinstance(server, str) else server.url
    values = {"base_url": url, "model": "m", "backoff_s": 0.01, "timeout_s": 5} | fields
    return Client(EndpointConfig.parse(values), Cache(str(tmp_path / "answers.sqlite")))


def ask(client, text="Hi", sampling=None):
    return client.chat([Message("user", text)], sampling or RemoteSampling(max_tokens=50))


def test_an_answer_and_what_was_asked(tmp_path):
    with serving() as server:
        client = client_of(server, tmp_path, extra={"top_k": 3})
        prompt = [Message("system", "Be short."), Message("user", "What?", ("data:image/png;base64,AAAA",))]
        reply = client.chat(prompt, RemoteSampling(max_tokens=9, temperature=0, stop=("###",)))
        assert (reply.text, reply.finish_reason, reply.usage, reply.model) == (
            "Hello.",
            "stop",
            Tokens(100, 20),
            "tiny-1",
        )
        assert reply.refused is None
        (request,) = server.requests
        assert request["path"] == "/v1/chat/completions"
        assert "Authorization" not in request["headers"]
        assert request["body"] == {
            "model": "m",
            "max_tokens": 9,
            "temperature": 0.0,
            "stop": ["###"],
            "top_k": 3,
            "messages": [
                {"role": "system", "content": "Be short."},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                        {"type": "text", "text": "What?"},
                    ],
                },
            ],
        }


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, 529])
def test_passing_faults_are_tried_again(code, tmp_path):
    with serving(status(code), status(code)) as server:
        client = client_of(server, tmp_path)
        assert ask(client).text == "Hello."
        assert len(server.requests) == 3
        assert client.counts["retries"] == 2


BROKEN = {
    "cut": cut(),
    "hung up": hangs_up,
    "no JSON": raw(b"<html>busy</html>"),
    "half a JSON": raw(b'{"choices": [{"message": {"content": "x"'),
    "deep": raw(b"[" * 100_000),
    "a list": raw(b"[1]"),
    "choices null": raw(b'{"choices": null}'),
    "choices empty": raw(b'{"choices": []}'),
    "choices numbers": raw(b'{"choices": [3]}'),
    "message text": raw(b'{"choices": [{"message": "x"}]}'),
    "content number": raw(b'{"choices": [{"message": {"content": 7}}]}'),
    "finish list": raw(b'{"choices": [{"message": {"content": "x"}, "finish_reason": [1]}]}'),
    "error in a 200": raw(b'{"error": {"message": "overloaded"}}'),
    "not UTF-8": raw(b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "compressed": raw(b"xx", {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_tried_again_and_then_given_up(name, tmp_path):
    with serving(BROKEN[name]) as server:
        client = client_of(server, tmp_path)
        assert ask(client).text == "Hello."
        assert len(server.requests) == 2
        server.default = BROKEN[name]
        client = client_of(server, tmp_path, max_tries=3)
        with pytest.raises(RowError, match="no answer in 3 tries") as raised:
            ask(client, "other")
        assert raised.value.reason == "no_answer"
        assert len(server.requests) == 5


def test_a_slow_answer_is_given_up_in_time(tmp_path):
    def drips(handler, body):
        handler.send(200, b" ", {"Content-Length": "500"})
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)

    for slow in (says(wait=3), drips):
        with serving(default=slow) as server:
            begin = time.monotonic()
            with pytest.raises(RowError, match=r"Timeout|timeout_s"):
                ask(client_of(server, tmp_path, timeout_s=0.3, max_tries=2))
            assert time.monotonic() - begin < 4
            assert len(server.requests) == 2


def test_a_huge_answer_is_not_read(tmp_path):
    with serving(default=raw(b" " * (1 << 22))) as server:
        client = client_of(server, tmp_path, max_response_bytes=2048)
        with pytest.raises(RowError, match="2,048") as raised:
            ask(client)
        assert raised.value.reason == "oversize_answer"
        assert len(server.requests) == 1


def test_an_answer_without_usage_is_an_answer(tmp_path):
    body = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}'
    with serving(says("a", usage=None), raw(body)) as server:
        client = client_of(server, tmp_path, price_in=1, price_out=1)
        assert ask(client).usage is None
        assert ask(client, "other").usage is None
        assert client.counts["uncounted"] == 2
        assert client.cache.spent() > 2 * 50 / 1e6  # counted as the most that it may have been


def test_parts_of_a_text_are_one(tmp_path):
    with serving(
        raw(b'{"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}]}')
    ) as server:
        assert ask(client_of(server, tmp_path)).text == "ab"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says("Half of", finish="length"), "cut_by_length"),
        (says("", finish="content_filter"), "content_filter"),
        (says(None, finish="stop"), "empty_answer"),
        (says(" \n"), "empty_answer"),
        (says(None, refusal="I cannot."), "declined"),
        (raw(b'{"choices": [{"message": {"content": "\\ud800"}}]}'), "bad_text"),
    ],
)
def test_an_answer_of_no_use_is_refused_and_kept(answer, reason, tmp_path):
    with serving(answer) as server:
        client = client_of(server, tmp_path)
        assert ask(client).refused == reason
        assert ask(client_of(server, tmp_path)).refused == reason
        assert len(server.requests) == 1


def test_pauses_grow_at_random_up_to_a_bound(tmp_path, monkeypatch):
    with serving(default=status(500)) as server:
        client = client_of(server, tmp_path, max_tries=60, backoff_s=1, backoff_max_s=40)
        slept = []
        monkeypatch.setattr(client.limits, "sleep", slept.append)
        with pytest.raises(RowError):
            ask(client)
    assert len(slept) == 59
    assert all(0 <= seconds <= min(40, 2**k) for k, seconds in enumerate(slept))
    assert max(slept[6:]) > 25
    assert min(slept[6:]) < 15


def test_rows_without_an_answer_between_others_do_not_end_the_job(tmp_path):
    with serving() as server:
        client = client_of(server, tmp_path, concurrency=1, max_tries=1)
        for i in range(8):
            server.script = [status(500)]
            with pytest.raises(RowError):
                ask(client, f"lost {i}")
            assert ask(client, f"good {i}").text == "Hello."


@pytest.mark.parametrize("header", ["seconds", "date"])
def test_retry_after_is_honoured_by_all_threads(header, tmp_path):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    after = "1" if header == "seconds" else date
    with serving(status(429, headers={"Retry-After": after})) as server:
        client = client_of(server, tmp_path)
        first = threading.Thread(target=ask, args=(client,))
        first.start()
        while not server.times:
            time.sleep(0.01)
        time.sleep(0.1)
        ask(client, "another thread's")
        first.join()
        waited = [t - server.times[0] for t in server.times[1:]]
        assert len(waited) == 2
        assert all(0.9 < seconds < 20 for seconds in waited)


def test_retry_after_is_capped_and_nonsense_is_none(tmp_path):
    values = ["1e9", "soon", "-3", "nan", "inf", "Wed, 99 Foo 2020"]
    with serving(*(status(503, headers={"Retry-After": v}) for v in values)) as server:
        begin = time.monotonic()
        assert ask(client_of(server, tmp_path, retry_after_max_s=0.2, max_tries=9, backoff_max_s=0.02)).text == "Hello."
        assert 0.2 < time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(401, "Incorrect API key"), "401: the key is not accepted.*Incorrect API key"),
        (status(403), "403: the key may not"),
        (status(404, "no model"), "404: there is no such model.*no model"),
        (status(402), "402: the account has no money"),
        (status(429, "You exceeded", code="insufficient_quota"), "429.*You exceeded"),
        (status(307, headers={"Location": "http://127.0.0.1:1/elsewhere"}), "redirects are not followed"),
    ],
)
def test_what_ends_the_job_ends_it_for_all(answer, said, tmp_path):
    with serving(default=answer) as server:
        client = client_of(server, tmp_path)
        for text in ("a", "b", "c"):
            with pytest.raises(EndpointError, match=said) as raised:
                ask(client, text)
            assert "\n" not in str(raised.value)
        assert len(server.requests) == 1


def test_a_waiting_thread_hears_the_end(tmp_path):
    with serving(says(), default=status(401)) as server:
        client = client_of(server, tmp_path, requests_per_minute=6)
        ask(client)
        waiting = ThreadPoolExecutor(4)
        begin = time.monotonic()
        asked = [waiting.submit(ask, client, str(i)) for i in range(4)]
        client.limits._requests._level = 1.0  # the next one passes
        client.limits.hold(0)
        for future in asked:
            with pytest.raises(EndpointError, match="401"):
                future.result(timeout=5)
        assert time.monotonic() - begin < 9  # the limit alone would let the last pass after 30
        assert len(server.requests) == 2


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_bad_request_refuses_its_row_alone(code, tmp_path):
    with serving(status(code, "too long")) as server:
        client = client_of(server, tmp_path)
        with pytest.raises(RowError, match=f"{code}: too long") as raised:
            ask(client)
        assert raised.value.reason == "bad_request"
        assert ask(client, "short").text == "Hello."
        assert len(server.requests) == 2


def test_an_endpoint_that_is_not_there_ends_the_job(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    client = client_of(url, tmp_path, concurrency=1, max_tries=2)
    for text in "ab":
        with pytest.raises(RowError, match="ConnectError"):
            ask(client, text)
    with pytest.raises(DownError, match="3 requests in a row"):
        ask(client, "c")
    with pytest.raises(DownError):
        ask(client, "d")
    assert client.cache.spent() == 0


def test_no_more_than_concurrency_at_a_time(tmp_path):
    with serving(default=says(wait=0.05)) as server, ThreadPoolExecutor(12) as threads:
        client = client_of(server, tmp_path, concurrency=3)
        assert {r.text for r in threads.map(lambda i: ask(client, str(i)), range(24))} == {"Hello."}
        assert server.most == 3


def test_the_same_prompt_at_once_is_paid_once(tmp_path):
    with serving(default=says(wait=0.1)) as server, ThreadPoolExecutor(8) as threads:
        client = client_of(server, tmp_path)
        list(threads.map(lambda _: ask(client), range(8)))
        assert len(server.requests) == 1
        assert client.counts["cached"] == 7


def test_what_changes_the_answer_is_asked_anew(tmp_path):
    with serving() as server:
        for fields in ({}, {"model": "n"}, {"extra": {"top_k": 1}}, {"concurrency": 2, "max_tries": 9}):
            ask(client_of(server, tmp_path, **fields))
        client = client_of(server, tmp_path)
        ask(client, "other")
        ask(client, sampling=RemoteSampling(max_tokens=51))
        ask(client, sampling=RemoteSampling(max_tokens=50, seed=1))
        assert len(server.requests) == 6


def test_a_cap_of_money_is_not_passed_and_threads_are_counted(tmp_path):
    """Each answer costs 1; what one may cost at most is 60: the cap holds with 8 threads, and is used to within that."""
    with serving(default=says(usage=(0, 1), wait=0.01)) as server, ThreadPoolExecutor(8) as threads:
        prices = {"price_out": 1e6, "max_cost": 100, "concurrency": 8}
        client = client_of(server, tmp_path, **prices)
        asked = [threads.submit(ask, client, str(i), RemoteSampling(max_tokens=60)) for i in range(150)]
        errors = [f.exception() for f in asked]
        assert any(isinstance(e, BudgetError) for e in errors)
        assert all(e is None or isinstance(e, BudgetError) for e in errors)
        assert 40 <= len(server.requests) <= 100
        assert client.cache.spent() == len(server.requests) == len(client.cache)
        assert "is spent" in str(client.ended_by())
        again = client_of(server, tmp_path, **prices)  # the cap is the cache's, not a process's
        with pytest.raises(BudgetError):
            ask(again, "new", RemoteSampling(max_tokens=60))
        assert ask(again, "0", RemoteSampling(max_tokens=60)).text == "Hello."


def test_what_may_have_been_paid_counts(tmp_path):
    with serving(cut(), status(500), hangs_up) as server:
        client = client_of(server, tmp_path, price_out=1e6)
        ask(client, sampling=RemoteSampling(max_tokens=60))
        assert client.cache.spent() == 60 + 60 + 20
        assert client.purse.spent == client.cache.spent()


def test_the_key_is_sent_and_nowhere_written(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    echo = status(401, f"Incorrect key {KEY}")
    with serving(says(f"Your key is {KEY}."), status(500, KEY), status(400, KEY), default=echo) as server:
        client = client_of(server, tmp_path, api_key_env="MY_KEY", max_tries=1)
        assert ask(client).text == "Your key is ***."
        assert server.requests[0]["headers"]["Authorization"] == f"Bearer {KEY}"
        errors = []
        for text in "abc":
            with pytest.raises((RowError, EndpointError)) as raised:
                ask(client, text)
            errors.append(str(raised.getrepr(style="long", showlocals=False)) + repr(raised.value))
    client.cache.close()
    written = [p.read_bytes() for p in tmp_path.iterdir()]
    told = "\n".join([caplog.text, *capfd.readouterr(), *errors, repr(client.config), client.config.model_dump_json()])
    assert KEY not in told
    assert not any(KEY.encode() in data for data in written)


def test_a_key_that_is_none_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(InputError, match="'MY_KEY' is not set"):
        client_of("http://127.0.0.1:1", tmp_path, api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", "two words-secret")
    with pytest.raises(InputError, match="spaces") as raised:
        client_of("http://127.0.0.1:1", tmp_path, api_key_env="MY_KEY")
    assert "secret" not in str(raised.value)


def test_proxies_are_not_asked_about_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving() as server:
        assert ask(client_of(server, tmp_path)).text == "Hello."


def test_pictures_are_data_uris():
    with pytest.raises(InputError, match="data URI"):
        Message("user", "x", ("https://example.com/a.png",))


def test_nothing_here_needs_ray():
    code = "import sys; import vinnow.evaluate.remote.client; assert not {'ray', 'torch'} & set(sys.modules)"
    root = Path(__file__).parents[3].parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_the_scripted_server_answers_as_openai_does():
    assert completion("x")["usage"] == {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
