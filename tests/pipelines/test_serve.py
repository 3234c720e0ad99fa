"""`vinnow serve`: what a client of OpenAI's gets, equal to what the model says in this process; and every refusal."""

import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from PIL import Image
from serving import serving
from vinnow.evaluate.generator import Turn
from vinnow.evaluate.sampling import Sampling
from vinnow.evaluate.talk import TalkConfig, open_generator

openai = pytest.importorskip("openai", reason="its client asks here: pip install -e '.[dev]'")
QUESTIONS = ["what?", "red?", "is it blue?", "how many are there?", "a circle?", "which color is the square?"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    Image.new("RGB", (50, 30), "red").save(folder / "a b.png")
    return folder


@pytest.fixture(scope="module")
def server(tiny_model, root):
    with serving(
        tiny_model, "--allow-image-root", str(root), "--set", "max_wait_ms=200", "--set", "max_new_tokens=2000"
    ) as one:
        yield one


@pytest.fixture(scope="module")
def client(server):
    return server.client()


@pytest.fixture(scope="module")
def generator(tiny_model):
    return open_generator(TalkConfig.fitting(tiny_model, {}))


def png(size=(50, 30), color="red"):
    sink = io.BytesIO()
    Image.new("RGB", size, color).save(sink, "PNG")
    return sink.getvalue()


def uri(data=None):
    return "data:image/png;base64," + base64.b64encode(png() if data is None else data).decode()


def showing(url, text="what is it?"):
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"role": "user", "content": parts}


def asked(messages="what?", **more):
    messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return {"model": "twin", "messages": messages, "temperature": 0, "max_tokens": 6} | more


def ask(client, messages="what?", **more):
    return client.chat.completions.create(**asked(messages, **more))


def test_a_history_with_pictures_and_a_system_text_is_answered_as_the_model_does(client, generator):
    history = [
        {"role": "system", "content": "you are short"},
        showing(uri()),
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "this?"}]},
    ]
    answer = ask(client, history)
    turns = [Turn("human", "<image>\nwhat is it?"), Turn("gpt", "red"), Turn("human", "and\nthis?")]
    image = Image.open(io.BytesIO(png()))
    prompt = generator.encode(turns, [image], "you are short")
    (reply,) = generator.reply([prompt], [Sampling(max_new_tokens=6)])
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (reply.text, reply.finish)
    usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert usage == (len(prompt.input_ids), len(reply.tokens))
    assert answer.usage.total_tokens == sum(usage)
    assert ask(client, history[1:]).usage.prompt_tokens != answer.usage.prompt_tokens
    # what an answer holds may come back
    again = ask(client, [*history, choice.message.model_dump(), {"role": "user", "content": "sure?"}])
    assert again.usage.prompt_tokens > answer.usage.prompt_tokens


def test_a_file_below_the_root_is_the_same_picture(client, root):
    by_file = ask(client, [showing(f"file://{root}/a%20b.png")])
    by_bytes = ask(client, [showing(uri())])
    assert by_file.choices == by_bytes.choices
    assert by_file.usage == by_bytes.usage


def test_a_stream_is_the_whole_answer_in_pieces(client):
    equal = 0
    for question in QUESTIONS:
        whole = ask(client, question)
        chunks = list(ask(client, question, stream=True, stream_options={"include_usage": True}))
        told = [c.choices[0] for c in chunks if c.choices]
        assert [c.finish_reason for c in told] == [None] * (len(told) - 1) + [whole.choices[0].finish_reason]
        assert chunks[-1].usage == whole.usage
        assert len({c.id for c in chunks}) == 1
        # half a character, which a real model does not end on, may be told of otherwise
        if "\N{REPLACEMENT CHARACTER}" not in (text := whole.choices[0].message.content):
            assert "".join(c.delta.content or "" for c in told) == text
            equal += len(told) > 3
    assert equal > 2


def test_a_stop_text_ends_an_answer_and_is_cut_off(client):
    whole = ask(client, max_tokens=20).choices[0]
    text = whole.message.content
    assert whole.finish_reason == "length"
    stop = text[len(text) // 2 :][:3]
    cut = ask(client, max_tokens=20, stop=[stop]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (text[: text.index(stop)].rstrip(), "stop")


def test_draws_follow_the_seed(client):
    def draw(seed, **more):
        return ask(client, temperature=1.5, top_p=0.95, seed=seed, max_tokens=12, **more).choices[0].message.content

    assert draw(1) == draw(1) != draw(2)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, [1, 2, 1, 3]))[::2] == [draw(1)] * 2


def test_requests_at_a_time_are_batched_and_answered_as_alone(server, client):
    messages = [QUESTIONS[i % 6] if i % 3 else [showing(uri(png((20 + i, 30))), QUESTIONS[i % 6])] for i in range(32)]
    lengths = [3 + i % 5 for i in range(32)]

    def one(i):
        answer = ask(client, messages[i], max_tokens=lengths[i])
        return answer.choices[0].message.content, answer.usage

    alone = [one(i) for i in range(32)]
    before = server.health
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(one, range(32)))
    after = server.health
    assert together == alone
    assert len(set(map(str, together))) > 6
    assert after["rows"] - before["rows"] == 32
    assert after["batches"] - before["batches"] <= 8
    assert after["largest"] > 4


def test_a_client_that_hangs_up_has_its_row_given_up_and_no_other(server, client, generator):
    prompt = generator.encode([Turn("human", "what?")])
    (reply,) = generator.reply([prompt], [Sampling(max_new_tokens=400)])
    assert len(reply.tokens) == 400
    before = server.health
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask, client, max_tokens=400)
        with ask(client, "red?", max_tokens=1900, stream=True) as stream:
            next(iter(stream))
        assert other.result().choices[0].message.content == reply.text
    wait_until(lambda: server.health["given_up"] == before["given_up"] + 1)
    assert server.health["tokens"] - before["tokens"] < 400 + 1900
    assert server.health["requests"] == 0


def test_under_load_none_that_was_accepted_is_lost(server):
    """Good ones, bad ones and those who leave, at a time: the server counts each once, and every good one is answered."""
    before = server.health
    good = [asked([showing(uri())] if i % 2 else "what?", stream=i % 4 < 2, max_tokens=30) for i in range(32)]
    bad = {400: asked([showing(uri(png((10_000, 10_000))))]), 413: b" " * 50_000_000}

    def leave(stream):
        """Hang up on an answer of 1,900 tokens: in the middle of its stream, or while waiting for all of it."""
        body = asked("red?", stream=stream, max_tokens=1900)
        if not stream:
            with pytest.raises(httpx2.ReadTimeout):
                httpx2.post(f"{server.url}/chat/completions", json=body, timeout=1)
            return 0
        with httpx2.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as reply:
            next(reply.iter_raw())
        return 0

    with ThreadPoolExecutor(40) as pool:
        left = [pool.submit(leave, stream) for stream in (True, False)]
        told = [pool.submit(server.post, b, headers={"Content-Type": "application/json"}) for b in bad.values()]
        answers = list(pool.map(server.post, good))
        assert [t.result().status_code for t in told] == list(bad)
        assert [one.result() for one in left] == [0, 0]
    assert {a.status_code for a in answers} == {200}
    assert all(a.text.endswith("[DONE]\n\n") == b["stream"] for a, b in zip(answers, good, strict=True))
    wait_until(lambda: server.health["requests"] == server.health["waiting"] == 0)
    after = server.health
    counts = {n: after[n] - before[n] for n in ("accepted", "answered", "refused", "hung_up", "errors", "turned_away")}
    assert counts == {"accepted": 36, "answered": 32, "refused": 2, "hung_up": 2, "errors": 0, "turned_away": 0}


def wait_until(holds, seconds=60):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"n": 2}, "n", "1"),
        ({"n": True}, "n", "1"),
        ({"temprature": 1}, "temprature", "did you mean 'temperature'"),
        ({"temperature": 3}, "temperature", "0 to 2"),
        ({"temperature": "1"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "more than 0"),
        ({"max_tokens": 0}, "max_tokens", "1 to 2000"),
        ({"max_tokens": 2001}, "max_tokens", "1 to 2000"),
        ({"max_completion_tokens": 5}, "max_tokens", "not both"),
        ({"seed": 1.5}, "seed", "whole"),
        ({"stop": [""]}, "stop", "empty"),
        ({"stop": "\ud800"}, "stop", "surrogate"),
        ({"logprobs": True}, "logprobs", "False"),
        ({"tools": [{}]}, "tools", "[]"),
        ({"response_format": {"type": "json_object"}}, "response_format", "text"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
        ({"stream": 1}, "stream", "true or false"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0]", "take turns"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]}, "messages[1]", "in front"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "list of parts"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name", "cannot use"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages", "max_len"),
        ({"messages": [{"role": "user", "content": "w" * 300_000}]}, "messages", "characters"),
        ({"messages": [showing(uri(), "see <image>")]}, "messages", "<image>"),
        ({"messages": [showing(uri()), {"role": "assistant", "content": ""}] * 8 + [showing(uri())]}, "messages", "most 8"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_by_its_field(server, change, param, words):
    reply = server.post(json.dumps(asked() | change).encode(), headers={"Content-Type": "application/json"})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]


def test_fields_that_change_nothing_pass(client):
    plain = {"n": 1, "user": "me", "presence_penalty": 0, "logit_bias": {}, "seed": None, "stop": None}
    assert ask(client, **plain).choices == ask(client).choices


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://x.org/a.png", "nothing is fetched"),
        ("a.png", "nothing is fetched"),
        ("data:image/png;base64,AAA!", "base64 is damaged"),
        ("data:image/png;base64,", "no bytes"),
        ("data:image/png,abc", "begins with"),
        ("data:text/html;base64,AAAA", "begins with"),
        (uri(b"no picture"), "known format"),
        (uri(png((200, 200))[:-60]), "truncated"),
        (uri(png((10_000, 10_000))), "over 25000000"),
        ("file:///etc/passwd", "no such picture"),
        ("file://other/a.png", "file:///PATH"),
    ],
    ids=lambda v: v[:24],
)
def test_pictures_that_cannot_be_shown_are_refused_by_their_place(server, url, words):
    reply = server.post(asked([showing(url)]))
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "messages[0].content[1]")
    assert words in error["message"]


def test_a_key_that_stands_twice_is_refused_by_its_name_at_any_depth(server):
    body = json.dumps(asked() | {"metadata": {"a": [{"b": 1}]}})
    for once, twice, key in (
        ('"max_tokens": 6', '"max_tokens": 6, "max_tokens": 5', "max_tokens"),
        ('"role": "user"', '"role": "user", "role": "user"', "role"),
        ('"b": 1', '"b": 1, "b": 1', "b"),
    ):
        assert once in body
        reply = server.post(body.replace(once, twice).encode(), headers={"Content-Type": "application/json"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, key)
        assert f"{key}: is there twice" in reply.json()["error"]["message"]


def test_bodies_that_are_no_chat_completion(server):
    json_type = {"Content-Type": "application/json"}
    assert server.post(b" " * 50_000_000, headers=json_type).status_code == 413
    parts = iter([b" " * 1_000_000] * 50)
    for data, more in ((b"{", {}), (b"[]", {}), (b"[" * 100_000, {}), (b"[{}" + b",{}" * 300_000 + b"]", {})):
        assert server.post(data, headers=json_type | more).status_code == 400
    assert server.post(b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert server.post(b"{}", headers=json_type | {"Content-Encoding": "gzip"}).status_code == 415
    # without a length it is counted as it comes
    reply = httpx2.post(f"{server.url}/chat/completions", content=parts, headers=json_type, timeout=60)
    assert reply.status_code == 413
    assert server.health["requests"] == 0


def test_models_and_what_is_not_there(server, client):
    assert [m.id for m in client.models.list()] == ["twin"]
    assert client.models.retrieve("twin").id == "twin"
    for call in (lambda: client.models.retrieve("gpt"), lambda: ask(client, model="gpt")):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "model_not_found"
    for where in ("/v1/embeddings", "/"):
        assert httpx2.get(server.url.removesuffix("/v1") + where).json()["error"]["type"] == "invalid_request_error"
    # a page that had its own name lead here
    assert httpx2.get(f"{server.url}/models", headers={"Host": "evil.org"}).status_code == 403


def test_who_comes_when_all_places_are_taken_is_told_to_come_again_and_the_end_waits_for_who_is_in(talkative_model):
    with serving(
        talkative_model, "--set", "max_requests=2", "--set", "max_batch=1", "--set", "max_new_tokens=2000"
    ) as server:
        client, answers = server.client(), []

        def stream():
            answers.append("".join(c.choices[0].delta.content or "" for c in ask(client, max_tokens=600, stream=True)))

        threads = [threading.Thread(target=stream) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.health["requests"] == 2)
        reply = server.post(asked())
        assert (reply.status_code, reply.json()["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(reply.headers["Retry-After"]) <= 60
        server.process.terminate()
        wait_until(lambda: server.health["status"] == "draining")
        assert server.post(asked()).status_code == 503
        for thread in threads:
            thread.join()
        assert len(answers) == 2
        assert answers[0] == answers[1] != ""
        assert server.process.wait(60) == 0


def test_what_the_bound_of_the_end_leaves_over_is_told_and_counted(talkative_model):
    many = ("--set", "max_new_tokens=2000", "--set", "drain_seconds=0.2", "--set", "max_batch=1")
    with serving(talkative_model, *many) as server, ThreadPoolExecutor(3) as pool:
        bodies = [asked(max_tokens=2000), asked(max_tokens=2000, stream=True), asked(max_tokens=2000)]
        replies = [pool.submit(server.post, body) for body in bodies]
        wait_until(lambda: server.health["requests"] == 3)
        assert server.end() == 1
        for body, reply in zip(bodies, [r.result() for r in replies], strict=True):
            assert reply.status_code == 503 or (body.get("stream") and "shutting_down" in reply.text)
            assert "[DONE]" not in reply.text
    assert "3 accepted requests got no answer" in "".join(server.said)


def test_a_request_that_takes_too_long_ends_with_its_time(talkative_model):
    with serving(talkative_model, "--set", "request_seconds=0.3", "--set", "max_new_tokens=2000") as server:
        reply = server.post(asked(max_tokens=2000))
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
        told = server.post(asked(max_tokens=2000, stream=True)).text
        assert '"code": "timeout"' in told
        assert "[DONE]" not in told
        wait_until(lambda: server.health["given_up"] == 2)


def test_another_host_needs_a_key_and_every_request_brings_it(tiny_model, tmp_path):
    from typer.testing import CliRunner
    from vinnow.pipelines.cli.main import app

    for options, words in (
        (("--host", "0.0.0.0"), "API key"),
        (("--host", "0.0.0.0", "--api-key-env", "NOT_SET_HERE"), "NOT_SET_HERE"),
        (("--allow-image-root", str(tmp_path / "gone")), "gone"),
        (("--replicas", "0"), "replicas"),
    ):
        done = CliRunner().invoke(app, ["serve", tiny_model, "--port", "0", *options])
        assert done.exit_code
        assert words in str(done.exception)
    key = "a-key-of-more-than-16"
    with serving(
        tiny_model, "--host", "0.0.0.0", "--api-key-env", "MY_KEY", "--replicas", "2", env={"MY_KEY": key}
    ) as server:
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")
        for wrong in ("none", key[:-1], key + "x"):
            with pytest.raises(openai.AuthenticationError):
                ask(server.client(wrong))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: ask(server.client(key)).choices[0].message.content, range(4)))
        assert len(set(answers)) == 1
        assert server.health["status"] == "ok"
        assert server.end() == 0
