"""A model behind an OpenAI-compatible endpoint: `serve`."""

from typing import Annotated

import typer

from .app import Sets, app


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder: whole, an adapter, MoReS.")],
    host: Annotated[str | None, typer.Option(help="Where it listens [127.0.0.1]; others need a key.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port [8000]; 0 takes a free one.")] = None,
    name: Annotated[str | None, typer.Option(help="What requests call the model [its folder's name].")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="The environment variable that holds the API key.")] = None,
    allow_image_root: Annotated[
        str | None, typer.Option(help="Pictures below this folder may be asked for as file:// URLs.")
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of the model, one a GPU [1].")] = None,
    four_bits: Annotated[
        bool, typer.Option("--4bit", help="Hold the decoder's weights in 4 bits (bitsandbytes).")
    ] = False,
    sets: Sets = None,
) -> None:
    """Serve a model at an OpenAI-compatible endpoint (/v1/chat/completions), until SIGTERM or Ctrl-C.

    Example: `vinnow serve runs/lora/model --port 8000`

    `--set` reaches every field of `vinnow config serve`: the limits, `template`, `max_len`, `precision`, `device`.
    """
    from ..runs.plain_yaml import settings
    from ..serve.config import ServeConfig
    from ..serve.run import serve as work

    options = {"host": host, "port": port, "name": name, "api_key_env": api_key_env}
    options |= {"image_root": allow_image_root, "replicas": replicas, "quantise": "nf4" if four_bits else None}
    asked = {n: value for n, value in options.items() if value is not None}
    work(ServeConfig.fitting(model, settings(sets) | asked))
