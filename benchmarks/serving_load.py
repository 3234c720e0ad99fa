"""`vinnow serve` under load: 200 clients at a time, some of whom do what clients should not.

Each client asks for one answer: streamed or whole, with a small picture or without. One in nine is no good: a picture of
100 megapixels, a data URI that is damaged, a body of 50 MB, one that hangs up while its answer is streamed, one that hangs
up while it waits for a whole one. All good ones must be answered, and the server's own count must say so: accepted =
answered + refused + hung up, no errors. `peak_gib`: the server's memory at most, in each round of the same load.
Both sides in one run: batches, and one request at a time. The model has two layers and random weights; client and server
share the CPU. `python benchmarks/serving_load.py [--clients 200] [--rounds 3]` writes benchmarks/results/serving_load.json.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import aiohttp
import numpy as np
import psutil
from _measure import RESULTS, versions, write
from _rows import WORDS
from PIL import Image
from serving import bodies, served, tiny

BAD = ("huge", "damaged", "large_body", "left_stream", "left_whole")
# what the server should answer to those who stay
STATUS = {"huge": 400, "damaged": 400, "large_body": 413}


def crowd(clients: int, tokens: int) -> list[tuple[str, bytes]]:
    """Return (kind, body) of each client, shuffled."""
    good = bodies(clients, tokens)
    for i, body in enumerate(good):
        if i % 2:  # half without a picture
            body["messages"] = [{"role": "user", "content": " ".join(random.Random(i).choices(WORDS, k=8))}]
    asked = [("stream" if i % 4 < 2 else "whole", body | {"stream": i % 4 < 2}) for i, body in enumerate(good)]
    sink = io.BytesIO()
    Image.new("RGB", (10_000, 10_000), "red").save(sink, "PNG")
    huge, damaged = showing(good[0], sink.getvalue()), showing(good[0], b"no picture")
    for number in range(clients // 8):
        kind = BAD[number % len(BAD)]
        longer = good[number] | {"max_tokens": 4 * tokens, "stream": kind == "left_stream"}
        asked.append((kind, {"huge": huge, "damaged": damaged, "large_body": None}.get(kind, longer)))
    random.Random(0).shuffle(asked)
    return [(kind, b" " * 50_000_000 if body is None else json.dumps(body).encode()) for kind, body in asked]


def showing(body: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Return a request that shows these bytes as a picture."""
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what"}]
    return body | {"messages": [{"role": "user", "content": parts}]}


class Crowd:
    """The clients of one load, `at_a_time` of them together; `took`: seconds of each good answer, `first`: to its text."""

    def __init__(self, url: str, at_a_time: int) -> None:
        self.url, self.places = f"{url}/chat/completions", asyncio.Semaphore(at_a_time)
        self.took, self.first, self.tokens = list[float](), list[float](), 0
        self.seen, self.wrong = Counter[str](), list[str]()

    async def all(self, asked: list[tuple[str, bytes]]) -> float:
        """Send all; return the seconds that it took."""
        begin = time.perf_counter()
        no_limit, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(3600)
        async with aiohttp.ClientSession(connector=no_limit, timeout=patience) as session:
            await asyncio.gather(*(self._one(session, kind, body) for kind, body in asked))
        return time.perf_counter() - begin

    async def _one(self, session: aiohttp.ClientSession, kind: str, body: bytes) -> None:
        async with self.places:
            try:
                await self._ask(session, kind, body)
            except (aiohttp.ClientError, TimeoutError) as error:
                # a body that is not read to its end may break the connection under its sender's hands
                if kind != "large_body":
                    self.wrong.append(f"{kind}: {error!r:.200}")
        self.seen[kind] += 1

    async def _ask(self, session: aiohttp.ClientSession, kind: str, body: bytes) -> None:
        begin = time.perf_counter()
        patience = aiohttp.ClientTimeout(0.5) if kind == "left_whole" else None
        sent = session.post(self.url, data=body, headers={"Content-Type": "application/json"}, timeout=patience)
        try:
            async with sent as reply:
                if kind == "left_stream":
                    await reply.content.readany()
                    reply.close()
                    return
                data = await self._read(reply, kind, begin)
        except TimeoutError:
            if kind != "left_whole":
                raise
            return
        if reply.status != STATUS.get(kind, 200):
            self.wrong.append(f"{kind}: {reply.status} {data[:200]!r}")
        elif kind in ("stream", "whole"):
            self._count(kind, data, time.perf_counter() - begin)

    async def _read(self, reply: aiohttp.ClientResponse, kind: str, begin: float) -> bytes:
        data = await reply.content.readany()
        if kind == "stream":
            self.first.append(time.perf_counter() - begin)
        return data + await reply.read()

    def _count(self, kind: str, data: bytes, seconds: float) -> None:
        whole = json.loads(data) if kind == "whole" else None
        if whole is None and not data.endswith(b"data: [DONE]\n\n"):
            self.wrong.append(f"a stream was cut off: {data[-100:]!r}")
        self.took.append(seconds)
        self.tokens += whole["usage"]["completion_tokens"] if whole else 0


def peak(pid: int, anew: bool = False) -> float:
    """Return the most memory that a process has had, in GiB; `anew`: count from now on."""
    said = Path(f"/proc/{pid}/status").read_text()
    if anew:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(said.split("VmHWM:")[1].split()[0]) / 2**20


async def health(url: str) -> dict[str, Any]:
    """Return what the server counts, once nobody is under way."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(url.removesuffix("/v1") + "/health") as reply:
                told = await reply.json()
            if not told["requests"] and not told["waiting"]:
                return told
            await asyncio.sleep(0.1)


def measure(model: str, batch: int, rounds: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Put the load on a server with batches of this size, some rounds of it; return the figures of the last one."""
    people, peaks = crowd(asked.clients, asked.tokens), list[float]()
    good = sum(kind in ("stream", "whole") for kind, _ in people)
    # room for all, since this is not about those who are turned away
    with served(model, batch, 4 * asked.tokens, asked.at_a_time + 8) as (server, url):
        idle = psutil.Process(server.pid).memory_info().rss / 2**30
        before = asyncio.run(health(url))
        for _ in range(rounds):
            peak(server.pid, anew=True)
            clients, start = Crowd(url, asked.at_a_time), asyncio.run(health(url))
            seconds = asyncio.run(clients.all(people))
            told = asyncio.run(health(url))
            peaks.append(round(peak(server.pid), 3))
            if clients.wrong or len(clients.took) != good:
                raise SystemExit(f"{good - len(clients.took)} good answers are missing: {clients.wrong[:5]}")
    counts = {n: told[n] - before[n] for n in ("accepted", "answered", "refused", "errors", "hung_up", "turned_away")}
    if (
        counts["errors"]
        or counts["turned_away"]
        or counts["accepted"] != sum(counts[n] for n in ("answered", "refused", "hung_up"))
    ):
        raise SystemExit(f"the server's count does not add up: {counts}")
    return {
        "seconds": round(seconds, 2),
        "good_per_s": round(good / seconds, 2),
        "tokens_per_s": round((told["tokens"] - start["tokens"]) / seconds, 1),
        "p50": round(float(np.percentile(clients.took, 50)), 2),
        "p95": round(float(np.percentile(clients.took, 95)), 2),
        "first_text_p50": round(float(np.percentile(clients.first, 50)), 2),
        "rounds": rounds,
        "counts": counts,
        "idle_gib": round(idle, 3),
        "peak_gib": peaks,
    }


def main() -> None:
    """Measure both sides."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=400, help="good ones of a round")
    parser.add_argument("--at-a-time", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=str(RESULTS / "serving_load.json"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = tiny(folder)
        batched = measure(model, asked.batch, asked.rounds, asked)
        print("batched", batched, flush=True)
        alone = measure(model, 1, 1, asked)
    row: dict[str, Any] = {
        "claim": "good answers per second under load, batched ÷ one at a time",
        "ratio": round(batched["good_per_s"] / alone["good_per_s"], 2),
        "batched": batched,
        "alone": alone,
        "a_round": dict(Counter(kind for kind, _ in crowd(asked.clients, asked.tokens))),
        "at_a_time": asked.at_a_time,
        "batch": asked.batch,
        "tokens": asked.tokens,
        "machine": f"{os.cpu_count()} CPU cores",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": versions("torch", "transformers", "aiohttp"),
    }
    write(row, asked.out)


if __name__ == "__main__":
    main()
