"""What an endpoint's config refuses, and that no message of it shows what may be a key."""

import pytest
from pydantic import ValidationError
from vinnow.evaluate.remote.config import EndpointConfig, RemoteSampling
from vinnow.evaluate.remote.reply import Message, body_of, request_key
from vinnow.store.errors import InputError


def config(**fields):
    return EndpointConfig.parse({"base_url": "https://api.example.com/v1", "model": "m"} | fields, "endpoint")


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "http://127.0.0.1:1", "http://[::1]:8/v1", "https://x.org/v1/"]
)
def test_good_urls(url):
    assert config(base_url=url).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://api.example.com/v1", "plain http to another machine"),
        ("http://127.0.0.1.evil.org/v1", "plain http to another machine"),
        ("http://localhost.evil.org", "plain http to another machine"),
        ("ftp://x/v1", "no http or https URL"),
        ("api.example.com/v1", "no http or https URL"),
        ("https://", "no http or https URL"),
        ("https://x.org:99999/v1", "is no URL"),
        ("https://[x/v1", "is no URL"),
        ("https://x.org/v1/chat/completions", "ends in /completions"),
    ],
)
def test_bad_urls(url, said):
    with pytest.raises(InputError, match=said):
        config(base_url=url)


def test_http_may_be_allowed():
    assert config(base_url="http://gpu-7:8000/v1", allow_http=True).base_url == "http://gpu-7:8000/v1"


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key_env": "sk-SECRET"},
        {"api_key_env": "sk_secret"},
        {"api_key_env": ["SECRET-LIST"]},
        {"base_url": "https://me:SECRET@x.org/v1"},
        {"base_url": "https://x.org/v1?key=SECRET"},
        {"base_url": "https://x.org/v1 SECRET"},
    ],
)
def test_a_key_in_the_wrong_place_is_not_shown(fields):
    values = {"base_url": "https://x.org/v1", "model": "m"} | fields
    with pytest.raises(InputError) as ours:
        EndpointConfig.parse(values, "endpoint")
    with pytest.raises(ValidationError) as theirs:
        EndpointConfig(**values)
    for error in (ours, theirs):
        assert "secret" not in str(error.value).lower()
        assert "secret" not in repr(error.value).lower()


def test_a_cap_wants_prices():
    with pytest.raises(InputError, match="price_in and price_out"):
        config(max_cost=5)
    assert config(max_cost=5, price_in=2.5, price_out=10).cost(1_000_000, 100_000) == 3.5


@pytest.mark.parametrize("name", ["model", "messages", "stream", "n", "temperature", "max_tokens"])
def test_extra_fields_do_not_replace_ours(name):
    with pytest.raises(InputError, match=name):
        config(extra={name: 1})


def test_null_is_not_sent_and_the_length_has_the_endpoints_name():
    body = body_of(config(length_field="max_completion_tokens"), [Message("user", "x")], RemoteSampling())
    assert body == {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 1024}


def test_a_key_is_of_the_content_alone():
    """Known value: the sha256 of canonical JSON, so that a cache stays good."""
    body = {"model": "m", "messages": [{"content": "ü", "role": "user"}], "max_tokens": 3}
    twin = {"max_tokens": 3, "messages": [{"role": "user", "content": "ü"}], "model": "m"}
    assert request_key(body) == request_key(twin)
    assert request_key(body) == "1811bc941f0ff22fe8063a72ab4da1436eaadaf302abda314696c377f44b5493"
