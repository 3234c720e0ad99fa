"""The HTTP side of `vinnow serve`: OpenAI's routes on aiohttp, around one engine."""

import asyncio
import hmac
import sys
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from threading import Lock
from typing import Any

from aiohttp import web

from ...evaluate.generator import Generator, Reply
from ...pool.encode import Encoded, EncodeError
from .admission import Admission, Place, too_large
from .answers import LAST, Completion, event
from .config import ServeConfig, is_loopback
from .engine import Engine, Job
from .errors import ApiError
from .pictures import open_picture
from .request import Asked, read_request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# of one answer; None is its end
Pieces = asyncio.Queue[str | None]


class Server:
    """One model's routes. `key`: the API key that requests must bring, if any."""

    def __init__(self, generator: Generator, engine: Engine, config: ServeConfig, key: str | None) -> None:
        self.admission = Admission(config)
        self._generator, self._engine, self._config = generator, engine, config
        self._key = None if key is None else f"Bearer {key}".encode()
        # pictures are decoded here, so many requests' at a time
        self._decoders = ThreadPoolExecutor(config.decoders, "decoder")
        self._encoding = Lock()
        self._jobs: set[Job] = set()

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._edge])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_get("/health", self._health)
        return app

    def give_up(self) -> int:
        """Tell all who still wait that there will be no answer; return how many were accepted and get none."""
        self.admission.ended = True
        for job in self._jobs:
            with suppress(InvalidStateError):
                job.done.set_exception(_ended())
        return self.admission.requests

    def close(self) -> None:
        """Let go of the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    # ---- the edge ----------------------------------------------------------------------------------

    @web.middleware
    async def _edge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check who asks; every refusal and fault leaves as OpenAI's error JSON."""
        try:
            self._check_caller(request)
            return await handler(request)
        except ApiError as error:
            return _refusal(error)
        except web.HTTPException as error:
            return _refusal(ApiError(error.status, f"{request.method} {request.path[:200]}: {error.reason}."))
        except TimeoutError:
            return _refusal(self._too_late())
        except ConnectionError:  # nobody is there to be told
            raise
        except Exception:  # noqa: BLE001  # the edge: this request's fault, the others go on
            traceback.print_exc(file=sys.stderr)
            return _refusal(ApiError(500, "the server met a bug of its own; its log says more.", code="internal_error"))

    def _check_caller(self, request: web.Request) -> None:
        if self._key is None:
            # a page in a browser here that has its own name lead to this address (DNS rebinding)
            host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
            if not is_loopback(host):
                raise ApiError(403, f"Host {host[:100]!r} is not this machine; without an API key only it is served.")
        elif request.path != "/health":
            # header bytes that are no text come as surrogates
            sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(sent, self._key):
                raise ApiError(401, "no or a wrong API key (Authorization: Bearer KEY).", code="invalid_api_key")

    # ---- routes ------------------------------------------------------------------------------------

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._card()]})

    async def _model(self, request: web.Request) -> web.Response:
        if request.match_info["name"] != self._config.served:
            raise ApiError(404, f"only {self._config.served!r} is served here.", "model", "model_not_found")
        return web.json_response(self._card())

    def _card(self) -> dict[str, Any]:
        return {"id": self._config.served, "object": "model", "created": 0, "owned_by": "vinnow"}

    async def _health(self, request: web.Request) -> web.Response:
        draining = self.admission.draining
        state = {"status": "draining" if draining else "ok", "requests": self.admission.requests}
        counts = {"waiting": self._engine.waiting, **asdict(self._engine.counts)}
        return web.json_response(state | asdict(self.admission.outcomes) | counts, status=503 if draining else 200)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        until = asyncio.get_running_loop().time() + self._config.request_seconds
        with self.admission.enter(self._engine.counts.seconds) as place:
            if request.content_type != "application/json" or request.headers.get("Content-Encoding"):
                raise ApiError(415, "the body must be plain application/json.")
            async with asyncio.timeout_at(until):
                asked, prompt = await self._read(request)
            job = Job(prompt, asked.sampling)
            self._jobs.add(job)
            try:
                if self.admission.ended:
                    raise _ended()
                if asked.stream:
                    return await self._stream(request, asked, job, until, place)
                return await self._whole(job, until)
            finally:
                # whoever has left waits for no batch, and what they sent takes no memory
                if job.done.cancel():
                    self._engine.forget(job)
                self._jobs.discard(job)

    async def _read(self, request: web.Request) -> tuple[Asked, Encoded]:
        """Return what is asked; the body's bytes are gone behind it."""
        limit, data = self._config.max_body_bytes, bytearray()
        with self.admission.hold(request.content_length, self._engine.counts.seconds):
            try:
                async for chunk in request.content.iter_any():
                    data += chunk
                    if len(data) > limit:
                        raise too_large(limit)
                return await asyncio.get_running_loop().run_in_executor(self._decoders, self._prepare, data)
            finally:
                data.clear()  # the decoders' queue may hold a body whose client has left

    def _prepare(self, data: bytearray) -> tuple[Asked, Encoded]:
        """Return what is asked, and its prompt; by a decoder's thread."""
        asked, sizes, media = read_request(bytes(data), self._config), [], []
        # a tokenizer and a processor are one thread's at a time
        for where, url in asked.urls:
            # no more than one is held as it is decoded: of all in a request that would be eight times as much
            image = open_picture(where, url, self._config)
            with self._encoding:
                sizes.append(image.size)
                media.append(self._generator.encoder.reader.among(len(asked.urls)).prepare(image))
        try:
            with self._encoding:
                prompt = self._generator.prompt(asked.turns, sizes, asked.system).showing(media)
        except EncodeError as error:
            code = "context_length_exceeded" if "max_len" in str(error) else None
            raise ApiError(400, f"messages: {error}", "messages", code) from error
        if len(prompt.input_ids) >= self._generator.positions:
            message = (
                f"messages: {len(prompt.input_ids)} tokens, and the model has {self._generator.positions} positions."
            )
            raise ApiError(400, message, "messages", "context_length_exceeded")
        return asked, prompt

    async def _whole(self, job: Job, until: float) -> web.Response:
        self._engine.submit(job)
        async with asyncio.timeout_at(until):
            reply = _sound(await asyncio.wrap_future(job.done))
        return web.json_response(Completion(self._config.served).whole(reply))

    async def _stream(
        self, request: web.Request, asked: Asked, job: Job, until: float, place: Place
    ) -> web.StreamResponse:
        loop, pieces = asyncio.get_running_loop(), Pieces()

        def hear(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        job.hear = hear
        job.done.add_done_callback(lambda _: hear(None))
        self._engine.submit(job)
        async with asyncio.timeout_at(until):
            piece = await pieces.get()
        if piece is None:  # no text, or no answer: a fault can still have its status
            _sound(job.done.result())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        try:
            async with asyncio.timeout_at(until):
                await self._tell(response, asked, job, piece, pieces)
        except (ApiError, TimeoutError) as error:
            place.failed = True
            await _last_word(request, response, error if isinstance(error, ApiError) else self._too_late())
        return response

    async def _tell(
        self, response: web.StreamResponse, asked: Asked, job: Job, piece: str | None, pieces: Pieces
    ) -> None:
        """Write a stream to its end, from its first piece on."""
        chunks = Completion(self._config.served)
        await response.write(chunks.chunk({"role": "assistant", "content": ""}))
        while piece is not None:
            await response.write(chunks.chunk({"content": piece}))
            piece = await pieces.get()
        reply = _sound(job.done.result())
        await response.write(chunks.chunk({}, reply.finish))
        if asked.usage:
            await response.write(chunks.counted(reply))
        await response.write(LAST)
        await response.write_eof()

    def _too_late(self) -> ApiError:
        return ApiError(504, f"no answer within {self._config.request_seconds:g} seconds.", code="timeout")


def _sound(reply: Reply) -> Reply:
    """Return a reply that can be trusted."""
    if not reply.finite:
        message = "the model's logits became NaN or infinite: its weights, or this precision, cannot answer."
        raise ApiError(500, message, code="not_finite")
    return reply


def _ended() -> ApiError:
    return ApiError(503, "the server ended before this request was answered.", code="shutting_down")


async def _last_word(request: web.Request, response: web.StreamResponse, error: ApiError) -> None:
    """End a stream with an error; a client that does not read on is cut off."""
    try:
        async with asyncio.timeout(1):
            await response.write(event(error.body()))
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def _refusal(error: ApiError) -> web.Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    response = web.json_response(error.body(), status=error.status, headers=headers)
    if error.status in (413, 503):
        response.force_close()  # a large body is not read to its end
    return response
