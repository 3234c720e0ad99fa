"""`vinnow serve` from its start to its end: load, listen, and on SIGTERM or Ctrl-C answer what was accepted."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable

import torch
from aiohttp import web

from ...evaluate.generator import Generator
from ...evaluate.talk import open_generator
from ...pool.images import check_root
from ...store.errors import InputError, VinnowError
from .app import Server
from .config import ServeConfig
from .engine import Engine

# seconds that connections have to take their last bytes, and threads their last token
LAST_BYTES = 5.0


def serve(config: ServeConfig) -> None:
    """Serve a model until a signal ends it.

    Raises:
        InputError: what cannot be served: no such model, key, folder, GPU or a port that is taken.
        VinnowError: something that was accepted got no answer, or the model's thread died.
    """
    key = config.key()
    if config.image_root is not None:
        check_root(config.image_root, "--allow-image-root")
    generators = [open_generator(c) for c in copies(config)]
    if lost := asyncio.run(_serve(config, key, generators)):
        raise VinnowError(lost)


def copies(config: ServeConfig) -> list[ServeConfig]:
    """Return the config of each copy of the model: on a device of its own.

    Raises:
        InputError: fewer GPUs than copies, or several copies on one that is named.
    """
    if config.replicas == 1:
        return [config]
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return [config] * config.replicas
    cards = torch.cuda.device_count()
    if config.device not in ("auto", "cuda") or cards < config.replicas:
        raise InputError(f"{config.replicas} replicas need as many GPUs, and `device` left at auto; there are {cards}.")
    return [config.model_copy(update={"device": f"cuda:{i}"}) for i in range(config.replicas)]


async def _serve(config: ServeConfig, key: str | None, generators: list[Generator]) -> str:
    """Listen until a signal; return what went wrong, "" if nothing."""
    loop, ending, hurry, dead = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event(), threading.Event()

    def died() -> None:
        dead.set()
        loop.call_soon_threadsafe(ending.set)

    engine = Engine(generators, config, died)
    server = Server(generators[0], engine, config, key)
    runner = web.AppRunner(
        server.app(),
        handle_signals=False,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=LAST_BYTES,
    )
    await runner.setup()
    try:
        await _listen(runner, config)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _heard, ending, hurry)
        await ending.wait()
        return await _drain(server, config, dead.is_set, hurry)
    finally:
        await runner.cleanup()
        server.close()
        engine.close(LAST_BYTES)


async def _listen(runner: web.AppRunner, config: ServeConfig) -> None:
    try:
        await web.TCPSite(runner, config.host, config.port).start()
    except OSError as error:
        raise InputError(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}.") from error
    port = runner.addresses[0][1]
    host = f"[{config.host}]" if ":" in config.host else config.host
    _say(f"serving {config.served!r} at http://{host}:{port}/v1 (Ctrl-C ends it)")


def _heard(ending: asyncio.Event, hurry: asyncio.Event) -> None:
    """Begin the end; a second signal waits for nobody."""
    (hurry if ending.is_set() else ending).set()


async def _drain(server: Server, config: ServeConfig, is_dead: Callable[[], bool], hurry: asyncio.Event) -> str:
    """Answer what was accepted, within the bound; return what went wrong."""
    server.admission.draining = True
    if not is_dead():
        if server.admission.requests:
            _say(f"ending: {server.admission.requests} accepted requests are answered first")
        waits = [asyncio.ensure_future(w) for w in (server.admission.idle(), hurry.wait())]
        await asyncio.wait(waits, timeout=config.drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    lost = server.give_up()
    if is_dead():
        return f"the model's thread died (see above); {lost} accepted requests got no answer."
    return f"{lost} accepted requests got no answer: drain_seconds is {config.drain_seconds:g}." if lost else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
