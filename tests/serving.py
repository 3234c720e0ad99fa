"""`vinnow serve` as a process of its own, or inside of this one, and its client, for tests."""

import asyncio
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
from commands import vinnow_line


class Served:
    """A running server: `url` ends in /v1. `said`: its lines so far."""

    def __init__(self, process):
        self.process, self.said = process, []
        self._up = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._up.wait(120), "".join(self.said)
        match = re.search(r"at (http://\S+/v1) ", "".join(self.said))
        assert match, "".join(self.said)
        self.url = match[1]

    def _listen(self):
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("serving "):
                self._up.set()
        self._up.set()

    @property
    def health(self):
        return httpx2.get(self.url.removesuffix("/v1") + "/health", timeout=60).json()

    def client(self, key="none"):
        from openai import OpenAI

        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=120)

    def post(self, body, **more):
        where = f"{self.url}/chat/completions"
        return httpx2.post(
            where, **({"content": body} if isinstance(body, bytes) else {"json": body}), timeout=120, **more
        )

    def end(self, number=signal.SIGTERM, seconds=60):
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def serving(model, *options, env=None):
    """Run a server on a free port while the body runs."""
    command = vinnow_line("serve", model, "--port", "0", "--name", "twin", *options)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    try:
        yield Served(process)
    finally:
        process.kill()
        process.wait()


class Hosted:
    """A server of this process. `died`: its model's thread has ended; then all who wait are told, as `run._drain` does."""

    def __init__(self, config, generator):
        from vinnow.pipelines.serve.app import Server
        from vinnow.pipelines.serve.engine import Engine

        self.generator, self.died, self.loop = generator, False, asyncio.new_event_loop()
        self.engine = Engine([generator], config, self._die)
        self.server = Server(generator, self.engine, config, None)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.url = self._do(self._listen())

    async def _listen(self):
        from aiohttp import web

        self.runner = web.AppRunner(self.server.app(), handle_signals=False, handler_cancellation=True)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def _die(self):
        self.died = True
        self.loop.call_soon_threadsafe(self.server.give_up)

    @property
    def health(self):
        return httpx2.get(f"{self.url}/health", timeout=60).json()

    def post(self, body):
        return httpx2.post(f"{self.url}/v1/chat/completions", json=body, timeout=120)

    def together(self, bodies):
        """Post all at a time; return the replies."""
        with ThreadPoolExecutor(len(bodies)) as pool:
            return list(pool.map(self.post, bodies))

    def end(self):
        self.engine.close(10)
        self._do(self.runner.cleanup())
        self.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)


@contextmanager
def hosted(config, generator=None):
    """Serve in this process while the body runs; the model goes by the name twin."""
    from vinnow.evaluate.talk import open_generator

    server = Hosted(config.model_copy(update={"name": "twin"}), generator or open_generator(config))
    try:
        yield server
    finally:
        server.end()
