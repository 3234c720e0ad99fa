"""What helps before and beside a run: `init`, `selectors`, `config`, `twin`."""

from dataclasses import asdict
from typing import Annotated

import typer

from ..progress import show, show_json
from .app import AsJson, Out, Sets, app


@app.command()
def init(
    source: Annotated[str, typer.Argument(help="Your records: LLaVA or ShareGPT JSON, Parquet or tar shards.")],
    images: Annotated[str | None, typer.Option(help="The folder or archive that image paths count from.")] = None,
    model: Annotated[str | None, typer.Option(help="The LLaVA folder that you tune.")] = None,
    test: Annotated[str | None, typer.Option(help="Records to evaluate on.")] = None,
    target: Annotated[str | None, typer.Option(help="Records of the tasks that LESS aims at.")] = None,
    run: Annotated[str, typer.Option(help="The run's own folder.")] = "runs/first",
    out: Annotated[str, typer.Option(help="The YAML to write.")] = "run.yaml",
) -> None:
    """Write a commented YAML for your data and your model, on whatever GPUs one machine has.

    Example: `vinnow init data/mix.json --images data/images --model models/llava --test data/test.json`
    """
    from ..runs.template import Start, write_start

    path = write_start(Start(source, images, model, test, target, run), out)
    show(f"{path}: look through it, then `vinnow plan {path}`")


@app.command()
def selectors(as_json: AsJson = False) -> None:
    """Every selector: what it reads, what it is, and what `--set` reaches."""
    from rich.markup import escape
    from rich.table import Table

    from ...select import registry

    facts = [asdict(fact) for fact in registry.facts()]
    if as_json:
        show_json(facts)
        return
    table = Table("selector", "reads", "what it is", "config")
    for row in facts:
        cells = (row["name"], ", ".join(row["needs"]), row["about"], ", ".join(row["fields"]))
        table.add_row(*map(escape, cells))
    show(table)


@app.command()
def rules(as_json: AsJson = False) -> None:
    """Every pick rule: how scores become picks, in place of a selector's own way (`vinnow select --rule`)."""
    from rich.markup import escape
    from rich.table import Table

    from ...select import rule

    facts = [asdict(fact) for fact in rule.facts()]
    if as_json:
        show_json(facts)
        return
    table = Table("rule", "reads", "what it is", "config")
    for row in facts:
        reads = "every target's score" if row["each_target"] else "one score a row"
        table.add_row(*map(escape, (row["name"], reads, row["about"], ", ".join(row["fields"]))))
    show(table)


@app.command()
def config(
    name: Annotated[
        str, typer.Argument(help="run, a section, a kind of feature, a selector, a pick rule or a recipe.")
    ],
) -> None:
    """Print a config as YAML, with its defaults and a word on each field; leave out what `--gpus auto` is to decide.

    Example: `vinnow config run`, `vinnow config gradient`, `vinnow config llava15-lora`
    """
    from ..configs import printed

    show(printed(name).rstrip())


@app.command()
def twin(
    pool: Annotated[str, typer.Option(help="A POOL folder, whose words its tokenizer learns.")],
    out: Out,
    sets: Sets = None,
) -> None:
    """Build a tiny LLaVA of random weights, for trying a run out on a CPU in minutes.

    `--set` reaches `llm`, `tower`, `connector.kind`, `hidden`, `layers`, `image`, `patch`, `vocab`, `seed` and the rest of
    its sizes.
    """
    from ...models.family.of_llava.tiny import build_tiny_model, words_of
    from ...models.specs import TinyModelConfig
    from ...pool.reader import Pool
    from ...store.claim import claim
    from ..runs.plain_yaml import settings

    config = TinyModelConfig.parse(settings(sets))
    with claim(out, "twin", inputs=[pool]):
        path = build_tiny_model(out, words_of([Pool(pool)]), config)
        show(f"{path}: {(config.image // config.patch) ** 2} tokens per picture")
