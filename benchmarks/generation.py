"""How much of an endpoint's allowed rate `vinnow generate` holds, against a local server that answers after 50 ms.

Bar: 95 % of the allowed requests per minute, and no minute with more than those, wherever it begins, but for those late on
their way; a second run asks nothing. Beside it, in the same run, what the same client does without a limit. The server is a
process of its own, and its own clock counts: `python benchmarks/generation.py --pictures 5000`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from _measure import RESULTS, versions, write
from vinnow.pipelines.generate.config import GenerateConfig
from vinnow.pipelines.generate.run import generate

TEXT = "Question:\nWhat is it?\n===\nAnswer:\nA dog.\n==="
BODY = json.dumps({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers each POST after a while; a GET tells when they came, and forgets them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    times: list[float] = []
    delay = 0.05

    def do_POST(self) -> None:
        self.times.append(time.monotonic())
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.delay)
        self._send(BODY)

    def do_GET(self) -> None:
        data = json.dumps(sorted(self.times)).encode()
        self.times.clear()
        self._send(data)

    def _send(self, data: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self.wfile.write(head.encode() + data)

    def log_message(self, *_: object) -> None:
        pass


def serve(delay: float) -> None:
    """Serve until killed; print the port first."""
    Handler.delay = delay
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def side(folder: Path, name: str, port: int, pictures: int, per_minute: float | None) -> dict:
    """Generate for so many pictures; returns seconds, what the server saw, and what a second run asked."""
    source = folder / f"{name}.json"
    rows = [{"image": f"{i}.jpg", "width": 9, "height": 9, "captions": [f"{name} {i}"] * 5} for i in range(pictures)]
    source.write_text(json.dumps(rows))
    endpoint = {"base_url": f"http://127.0.0.1:{port}", "model": "m", "requests_per_minute": per_minute}
    values = {"kind": "conversation", "source": str(source), "endpoint": endpoint, "max_refused": 0}
    config, out = GenerateConfig.parse(values), str(folder / name)
    begin = time.perf_counter()
    report = generate(config, out)
    seconds = time.perf_counter() - begin
    times = seen(port)
    begin = time.perf_counter()
    generate(config, out)
    again = time.perf_counter() - begin
    assert report.kinds == {"conversation": pictures}
    # of each request, the first that comes a minute later
    most = int(np.max(np.searchsorted(times, np.asarray(times) + 60) - np.arange(len(times))))
    return {
        "pictures": pictures,
        "seconds": round(seconds, 2),
        "requests": len(times),
        "per_minute": round(60 * (len(times) - 1) / (times[-1] - times[0]), 1),
        "most_in_a_minute": most,
        "again": {"requests": len(seen(port)), "seconds": round(again, 2)},
    }


def seen(port: int) -> list[float]:
    """Return when the server was asked since the last call."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        return json.load(response)


def main() -> None:
    """Measure both sides."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--per-minute", type=float, default=3000)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--out", default=str(RESULTS / "generation.json"))
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.delay)
        return
    command = [sys.executable, __file__, "--serve", "--delay", str(asked.delay)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        port = int(server.stdout.readline())
        try:
            limited = side(Path(folder), "limited", port, asked.pictures, asked.per_minute)
            free = side(Path(folder), "free", port, max(100, asked.pictures // 5), None)
        finally:
            server.kill()
    row = {
        "ratio": round(limited["per_minute"] / asked.per_minute, 4),
        "claim": "requests per minute that the endpoint saw, of those allowed",
        "allowed_per_minute": asked.per_minute,
        "limited": limited,
        "without_limit": free,
        "delay_s": asked.delay,
        "concurrency": GenerateConfig.model_fields["endpoint"].annotation.model_fields["concurrency"].default,
        "machine": f"{os.cpu_count()} CPU cores",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": versions("httpx2", "pydantic"),
    }
    write(row, asked.out)


if __name__ == "__main__":
    main()
