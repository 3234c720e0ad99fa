"""Instruction data from captions and boxes: `generate`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...store.errors import InputError
from ...store.reading import shown
from ..progress import bar, console, show, show_json
from .app import AsJson, Out, Sets, app

if TYPE_CHECKING:
    from ..generate.config import GenerateConfig


@app.command()
def generate(
    kind: Annotated[str, typer.Argument(help="conversation, detail, reasoning, or mix.")],
    source: Annotated[str, typer.Argument(help="COCO's captions JSON, or a table with image, captions, boxes.")],
    out: Out,
    instances: Annotated[
        str | None, typer.Option(help="COCO's instances JSON: boxes, for detail and reasoning.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="The endpoint, up to /v1: http://127.0.0.1:8000/v1.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name, as the endpoint knows it.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="The NAME of the variable that holds the key.")] = None,
    mix: Annotated[str | None, typer.Option(help="With mix: conversation=58,detail=23,reasoning=77.")] = None,
    config_file: Annotated[
        str | None, typer.Option("--config", help="A GenerateConfig as YAML; options go over it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it comes to, show a prompt, ask nobody.")
    ] = False,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Generate instruction data about pictures by a language model that reads their captions and boxes, as LLaVA's was.

    `OUT/records.json` is for `vinnow ingest`; refused answers are in `OUT/refused.parquet`, with reasons and texts. A run
    that was cut off goes on, and pays for nothing twice. `--set endpoint.max_cost=20` is a cap of money.

    Example: `vinnow generate mix captions.json --instances instances.json --base-url https://HOST/v1 --model M --out made`
    """
    from ..generate.run import generate as work

    if mix is not None and kind != "mix":
        raise InputError(f"--mix is for `vinnow generate mix`; {shown(kind)} is one kind.")
    named = {"kind": kind, "source": source, "instances": instances, "mix": None if mix is None else _mix(mix)}
    config = _config(config_file, named, {"base_url": base_url, "model": model, "api_key_env": api_key_env}, sets)
    if dry_run:
        _show_foreseen(config, out, as_json)
        return
    with bar("generate", "prompts") as tell:
        report = work(config, out, tell)
    if as_json:
        show_json(vars(report))
        return
    for line in _told(report.told):
        show(line)
    if report.left_under_way:
        then = "they were asked again" if config.endpoint.under_way == "retry" else "they are left out"
        left = f"{report.left_under_way:,} requests were under way when a run was killed, and may be paid"
        show(f"{left}: {then} (endpoint.under_way)")
    asked = report.paid.get("answers", 0)
    show(
        f"{report.records}: {_by_kind(report.kinds)}; {asked:,} answers were asked for now, {report.spent:.4g} is spent"
    )
    show(report.usage().line())
    console.print("next: `vinnow ingest` these records, with --images", markup=False)


def _config(
    path: str | None, named: dict[str, Any], endpoint: dict[str, str | None], sets: list[str] | None
) -> "GenerateConfig":
    """Return the config of a file, with what options say over it, and `--set` over that."""
    from ..blanks import refuse_blanks
    from ..generate.config import GenerateConfig
    from ..runs.plain_yaml import apply_set, read_yaml

    values: dict[str, Any] = read_yaml(path, what="generate config") if path else {}
    section = values.get("endpoint", {})
    values |= {n: v for n, v in named.items() if v is not None}
    if isinstance(section, dict):  # else its own error says what it is
        values["endpoint"] = section | {n: v for n, v in endpoint.items() if v is not None}
    for entry in sets or []:
        apply_set(values, entry)
    refuse_blanks(values)
    return GenerateConfig.parse(values)


def _show_foreseen(config: "GenerateConfig", out: str, as_json: bool) -> None:
    from ..generate.run import foresee

    foreseen = foresee(config, out)
    if as_json:
        show_json(vars(foreseen))
        return
    show(foreseen.example)
    for line in _told(foreseen.told):
        show(line)
    show(
        f"{_by_kind(foreseen.kinds)}; {foreseen.answered:,} prompts are answered already; the others take "
        f"{foreseen.tokens:,} tokens and {foreseen.cost:,.2f} of money at most"
    )


def _mix(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for entry in text.split(","):
        name, sep, value = entry.partition("=")
        try:
            shares[name.strip()] = float(value)
        except ValueError:
            sep = ""
        if not sep:
            raise InputError(f"--mix wants conversation=58,detail=23,reasoning=77, not {shown(text)}.") from None
    return shares


def _by_kind(kinds: dict[str, int]) -> str:
    return ", ".join(f"{kind} {n:,}" for kind, n in sorted(kinds.items())) or "none"


def _told(told: dict[str, int]) -> list[str]:
    return [f"not used: {n:,} {what}" for what, n in sorted(told.items())]
