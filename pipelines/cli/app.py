"""The Typer app and the options that several commands share."""

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Choose which visual-instruction data is worth training on.

A pool (LLaVA JSON) is **ingested** once, **features** of it are written once by actor pools, every **select**or is then a
cheap query, and a **sweep** fine-tunes and evaluates each choice beside random and the whole pool.

Start with `vinnow demo` (CPU, minutes), then `vinnow plan RUN.yaml` for your own data.""",
)


def _version(wanted: bool) -> None:
    if wanted:
        from ... import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


Sets = Annotated[list[str] | None, typer.Option("--set", help="Override one config field: a.b=c (repeatable).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Gpus = Annotated[str, typer.Option(help="auto (all GPUs there are, else the CPU), 0 (the CPU) or a number.")]
Out = Annotated[str, typer.Option(help="Output folder.")]
RunFile = Annotated[str, typer.Argument(help="The run's YAML, a run.json that a run saved, or a recipe's name.")]
Format = Annotated[str, typer.Option("--format", help="auto, llava, sharegpt, scienceqa, parquet or webdataset.")]
Split = Annotated[str | None, typer.Option(help="The split, where a source has several (ScienceQA, Parquet shards).")]
PoolDir = Annotated[str, typer.Option(help="A POOL folder, made by `vinnow ingest`.")]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Symbolic links below the image root may lead out of it.")
]
