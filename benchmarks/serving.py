"""What `vinnow serve` answers per second, with batches and one at a time, both sides in one run.

The same requests (a picture each, greedy), so many at a time, go to two servers of one model after each other: one batches
up to `--batch` of them, the other answers one at a time. `p50`, `p95`: seconds of a request, waiting included. The default
is a two-layer model of random weights on a CPU; `--model FOLDER` takes a real one, on a GPU where there is one.
`python benchmarks/serving.py [--model FOLDER] [--requests 64] [--at-a-time 32]` writes benchmarks/results/serving.json.
"""

import argparse
import asyncio
import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import torch
from _measure import RESULTS, versions, write
from _rows import WORDS
from PIL import Image

try:
    import aiohttp
except ImportError as error:
    raise SystemExit("this benchmark needs aiohttp, which the server stands on: pip install aiohttp") from error

# the server alone, without the command line and what else that imports
SERVER = """
import sys
from vinnow.pipelines.serve.config import ServeConfig
from vinnow.pipelines.serve.run import serve
model, batch, tokens, requests = sys.argv[1], *map(int, sys.argv[2:])
limits = {"max_batch": batch, "max_new_tokens": tokens, "max_requests": requests, "request_seconds": 3600}
serve(ServeConfig.fitting(model, {"name": "model", "port": 0, **limits}))
"""


def tiny(folder: str) -> str:
    """Write a two-layer model; returns its folder."""
    from vinnow.models.family.of_llava.tiny import build_tiny_model
    from vinnow.models.specs import TinyModelConfig

    return build_tiny_model(f"{folder}/twin", [" ".join(WORDS) + " USER: ASSISTANT: . , '"] * 50, TinyModelConfig())


def bodies(count: int, tokens: int) -> list[dict[str, Any]]:
    """Return requests, each with a picture and a question of its own."""
    rng, made_up = np.random.default_rng(0), []
    for _ in range(count):
        sink = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((640, 480)).save(sink, "JPEG")
        url = "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
        parts = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": " ".join(rng.choice(WORDS, 8))},
        ]
        made_up.append({"model": "model", "messages": [{"role": "user", "content": parts}]})
    return [body | {"temperature": 0, "max_tokens": tokens} for body in made_up]


async def ask(
    url: str, requests: list[dict[str, Any]], at_a_time: int
) -> tuple[float, list[float], list[dict[str, Any]]]:
    """Send all requests; returns the seconds of all, of each, and the answers."""
    places, took = asyncio.Semaphore(at_a_time), list[float]()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(3600)) as session:

        async def one(body: dict[str, Any]) -> dict[str, Any]:
            async with places:
                begin = time.perf_counter()
                async with session.post(f"{url}/chat/completions", json=body) as reply:
                    answer = await reply.json()
                took.append(time.perf_counter() - begin)
            if reply.status != 200:
                raise SystemExit(f"the server answers {reply.status}: {answer}")
            return answer

        # the first ones pay for what is set up once
        await asyncio.gather(*map(one, requests[:2]))
        took.clear()
        begin = time.perf_counter()
        answers = await asyncio.gather(*map(one, requests))
        return time.perf_counter() - begin, took, answers


@contextmanager
def served(model: str, batch: int, tokens: int, requests: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server with batches of this size; yield its process and its URL. It must end well."""
    command = [sys.executable, "-c", SERVER, model, *map(str, (batch, tokens, requests))]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = ""
        while not (where := re.search(r"at (http\S+/v1) ", said)):
            if not (line := server.stderr.readline()):
                raise SystemExit(f"the server did not start:\n{said}")
            said += line
        yield server, where[1]
        server.terminate()
        if code := server.wait(60):
            raise SystemExit(f"the server ended with exit code {code}")
    finally:
        server.kill()


def measure(model: str, batch: int, asked: argparse.Namespace) -> tuple[dict[str, float], list[str]]:
    """Serve with batches of this size; returns the figures, and the answers' texts."""
    with served(model, batch, asked.tokens, asked.at_a_time + 8) as (_, url):
        seconds, took, answers = asyncio.run(ask(url, bodies(asked.requests, asked.tokens), asked.at_a_time))
    tokens = sum(a["usage"]["completion_tokens"] for a in answers)
    figures = {
        "seconds": round(seconds, 3),
        "requests_per_s": round(len(answers) / seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "p50": round(float(np.percentile(took, 50)), 3),
        "p95": round(float(np.percentile(took, 95)), 3),
    }
    return figures, [a["choices"][0]["message"]["content"] for a in answers]


def main() -> None:
    """Measure both sides."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--at-a-time", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--out", default=str(RESULTS / "serving.json"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or tiny(folder)
        batched, texts = measure(model, asked.batch, asked)
        print("batched", batched, flush=True)
        alone, texts_alone = measure(model, 1, asked)
        print("one at a time", alone, flush=True)
    row: dict[str, Any] = {"claim": "requests per second, batched ÷ one at a time", "batched": batched, "alone": alone}
    row["ratio"] = round(batched["requests_per_s"] / alone["requests_per_s"], 2)
    # on a GPU in bfloat16 batches round otherwise
    row["equal_answers"] = round(float(np.mean([a == b for a, b in zip(texts, texts_alone, strict=True)])), 4)
    row |= {"model": "named" if asked.model else "tiny", "requests": asked.requests, "at_a_time": asked.at_a_time}
    row |= {"batch": asked.batch, "tokens": asked.tokens, "versions": versions("torch", "transformers", "aiohttp")}
    row["machine"] = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    write(row, asked.out)


if __name__ == "__main__":
    main()
