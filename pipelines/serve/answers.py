"""Answers as OpenAI's JSON: whole ones, and chunks of a stream."""

import json
import secrets
import time
from typing import Any

from ...evaluate.generator import Reply


class Completion:
    """One answer's JSON; its id, time and model are the same in all chunks."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return a `chat.completion`."""
        message = {"role": "assistant", "content": reply.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage(reply)}

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        """Return an event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self._head, "object": "chat.completion.chunk", "choices": [choice]})

    def counted(self, reply: Reply) -> bytes:
        """Return the event that counts a stream's tokens, which has no choice."""
        return event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(reply)})


def usage(reply: Reply) -> dict[str, int]:
    """Return what an answer took, in tokens."""
    prompt, answer = reply.prompt_tokens, len(reply.tokens)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def event(value: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


LAST = b"data: [DONE]\n\n"
