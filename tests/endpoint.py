"""A small OpenAI-compatible endpoint on loopback: answers by a script, and counts what it is asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler", dict], None]


def completion(text: str | None, usage: Any = (100, 20), finish: str | None = "stop", **message: Any) -> dict:
    """Return a chat completion's body."""
    body = {
        "id": "c-1",
        "object": "chat.completion",
        "model": "tiny-1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
    }
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)} if usage else None
    return body | ({"usage": counts} if counts else {})


def says(text: str | None = "Hello.", wait: float = 0.0, **fields: Any) -> Answer:
    """Answer with a completion, after `wait` seconds."""

    def answer(handler: "Handler", body: dict) -> None:
        time.sleep(wait)
        handler.send(200, json.dumps(completion(text, **fields)).encode())

    return answer


def status(number: int, message: str = "no", headers: dict | None = None, **error: Any) -> Answer:
    """Answer with an error in OpenAI's form."""
    data = json.dumps({"error": {"message": message, **error}}).encode()
    return lambda handler, body: handler.send(number, data, headers or {})


def raw(data: bytes, headers: dict | None = None) -> Answer:
    """Answer 200 with any bytes."""
    return lambda handler, body: handler.send(200, data, headers or {})


def cut(data: bytes = b'{"choices": [') -> Answer:
    """Promise a body, send some of it, and hang up."""

    def answer(handler: "Handler", body: dict) -> None:
        handler.send(200, data, {"Content-Length": "5000"})
        handler.close_connection = True

    return answer


def hangs_up(handler: "Handler", body: dict) -> None:
    """Close without a word."""
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    """Reads a request, notes it, and lets the script answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Endpoint"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(data)
        answer = self.server.note(self.path, dict(self.headers), body)
        try:
            answer(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.server.answered()

    def send(self, code: int, data: bytes, headers: dict | None = None) -> None:
        self.send_response(code)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class Endpoint(ThreadingHTTPServer):
    """`script`: answers for the first requests, in order; `default`: for later ones. `requests`, `most`: what it saw."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *script: Answer, default: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.default = list(script), default or says()
        self.requests: list[dict] = []
        self.times: list[float] = []
        self.most, self._under_way, self._lock = 0, 0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def bodies(self) -> list[dict]:
        return [r["body"] for r in self.requests]

    def note(self, path: str, headers: dict, body: dict) -> Answer:
        with self._lock:
            self.requests.append({"path": path, "headers": headers, "body": body})
            self.times.append(time.monotonic())
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            return self.script.pop(0) if self.script else self.default

    def answered(self) -> None:
        with self._lock:
            self._under_way -= 1


@contextmanager
def serving(*script: Answer, default: Answer | None = None) -> Iterator[Endpoint]:
    """Serve for the length of the body."""
    server = Endpoint(*script, default=default)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
