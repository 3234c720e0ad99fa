"""`vinnow serve` as a process of its own, and its client, for tests."""

import os
import re
import signal
import subprocess
import threading
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
