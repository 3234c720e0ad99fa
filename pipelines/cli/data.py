"""Records in, records out: `ingest`, `doctor`, `export`."""

from typing import Annotated

import typer

from ...store.errors import InputError
from ..progress import bar, show, show_json
from .app import AsJson, FollowLinks, Format, Out, Sets, Split, app

MaxLen = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Warn of longer records: words, or tokens with `--set tokenizer=FOLDER`. With --model: its longest row, 2048.",
    ),
]
OfModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="A model's folder: count tokens, and the rows that it would refuse or cut (no weights, no GPU)."
    ),
]
OfTemplate = Annotated[
    str | None,
    typer.Option("--template", help="With --model: a conversation template in place of the one that goes with it."),
]


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="Records: LLaVA or ShareGPT JSON, Parquet or tar shards, ScienceQA.")],
    out: Out,
    images: Annotated[str | None, typer.Option(help="The folder or archive that image paths count from.")] = None,
    format_name: Format = "auto",
    split: Split = None,
    follow_links: FollowLinks = False,
    sets: Sets = None,
) -> None:
    """Turn records into a POOL folder; every row ends there or in `refused.parquet` with a reason.

    More refused rows than `--set max_refused=0.05` allows are an error, and no pool is left.

    Example: `vinnow ingest llava_v1_5_mix665k.json --images playground/data --out pool`
    """
    from ...pool.ingest import IngestConfig, told_of, usage_of
    from ...pool.ingest import ingest as work
    from ..runs.plain_yaml import settings

    options = {
        "source": source,
        "image_root": images,
        "format": format_name,
        "split": split,
        "follow_links": follow_links,
    }
    config = IngestConfig.parse(options | settings(sets))
    with bar("ingest", "rows") as tell:
        report = work(config, out, progress=lambda rows: tell(rows, 0))
    for line in (f"{out}: {usage_of(report, out).line()}", *told_of(report)):
        show(line)


@app.command()
def doctor(
    source: Annotated[str, typer.Argument(help="Records: LLaVA or ShareGPT JSON, Parquet or tar shards, ScienceQA.")],
    images: Annotated[str | None, typer.Option(help="The folder or archive that image paths count from.")] = None,
    format_name: Format = "auto",
    split: Split = None,
    json_file: Annotated[str | None, typer.Argument(help="With --json: a file for it, beside the tables.")] = None,
    as_json: AsJson = False,
    max_len: MaxLen = None,
    model: OfModel = None,
    template: OfTemplate = None,
    follow_links: FollowLinks = False,
    sets: Sets = None,
) -> None:
    """Say what is wrong with a data set, without writing a pool.

    Exit code 0: nothing is refused (there may be warnings); 1: some rows are, by ingest or by the --model;
    2: the source cannot be read.

    Example: `vinnow doctor train.json --images images --model models/qwen --max-len 2048`
    """
    from ...pool.doctor import examine, render
    from ...pool.ingest import IngestConfig
    from ...store.files import write_json
    from ..runs.plain_yaml import settings

    if json_file and not as_json:
        raise InputError(
            f"doctor looks at one source; {json_file!r} is one too many (its findings as JSON: --json FILE)."
        )

    options = {
        "source": source,
        "image_root": images,
        "format": format_name,
        "split": split,
        "follow_links": follow_links,
    }
    config = IngestConfig.parse(options | settings(sets))
    if template is not None and model is None:
        raise InputError("--template is a model's: name it with --model.")
    encoder = None
    if model is not None:
        from ...models.encoding import encoder_of

        # each row is put through it, so that no words are counted
        encoder, max_len = encoder_of(model, template, max_len or 2048), None
    with bar("doctor", "rows") as tell:
        report = examine(config, lambda rows: tell(rows, 0), max_len, encoder)
    if as_json and not json_file:
        show_json(report.as_dict())
    else:
        for table in render(report):
            show(table)
    if json_file:
        write_json(json_file, report.as_dict())
    raise typer.Exit(1 if report.refused or report.unfit else 0)


@app.command()
def export(
    pool: Annotated[str, typer.Argument(help="A POOL folder.")],
    out: Annotated[str, typer.Option(help="The file to write: .json, .jsonl or .parquet.")],
    picks: Annotated[str | None, typer.Option(help="A PICKS file; without it, the whole pool.")] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="llava, sharegpt or parquet; by default what the file's name says.")
    ] = None,
    embed_images: Annotated[bool, typer.Option("--embed-images", help="Put pictures into the Parquet file.")] = False,
    pictures: Annotated[str, typer.Option(help="Beside JSON: write files, name, or auto.")] = "auto",
) -> None:
    """Write picks for another tool: LLaVA JSON, ShareGPT with `dataset_info.json` (LLaMA-Factory), or Parquet.

    Example: `vinnow export pool --picks out/picks/less-10pct.parquet --format sharegpt --out data/less.json`
    """
    from ...pool.export import export as work
    from ...pool.export import format_of
    from ...pool.reader import Pool
    from ...store.claim import check_new_file
    from ..runs.picking import ranked_ids

    form = format_of(out, format_name)
    check_new_file(out)
    reader = Pool(pool)
    if embed_images:
        reader.check_images()
    done = work(reader, ranked_ids(picks) if picks else reader.ids(), out, form, embed_images, pictures)
    show(f"{done.rows} rows in {out}" + (f", pictures beside it in {done.pictures}" if done.pictures else ""))
    if done.odd_marks:
        show(f"{done.odd_marks} rows hold a literal <image> that is no picture; LLaMA-Factory stops at them.")
