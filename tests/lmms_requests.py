"""Requests of the shape that lmms-eval 0.7.3 hands to a simple model, without lmms-eval."""

from dataclasses import dataclass


@dataclass
class Instance:
    """`lmms_eval.api.instance.Instance`, as far as a model reads it."""

    args: tuple
    task_name: str


def generating(number, context, to_visual, task="tiny", **setting):
    """Ask for an answer to document `number`, as `ConfigurableTask.construct_requests` does."""
    return Instance((context, setting, to_visual, number, task, "test"), task)


def continuing(number, context, continuation, to_visual, task="tiny"):
    """Ask for the likelihood of a text (or of what a function makes of the document)."""
    return Instance((context, continuation, to_visual, number, task, "test"), task)
