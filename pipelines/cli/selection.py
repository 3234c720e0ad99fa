"""From a pool and a model to picks: `features`, `select`."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ...store.errors import InputError
from ...store.reading import shown
from ...store.usage import MAX_REFUSED
from ..progress import bar, console, show, show_json
from .app import AsJson, Gpus, Out, PoolDir, Sets, app

if TYPE_CHECKING:
    from ...actors.config import CheckpointRef, FeatureConfig, FeatureReport


@app.command()
def features(
    pool: PoolDir,
    checkpoint: Annotated[list[str], typer.Option(help="STEP=FOLDER of a proxy checkpoint (repeatable).")],
    out: Out,
    kind: Annotated[str, typer.Option(help="gradient, influence, trajectory, loss, embedding, …")] = "gradient",
    name: Annotated[str | None, typer.Option(help="What the feature is called; its kind, if left out.")] = None,
    targets: Annotated[bool, typer.Option(help="The pool is a target set: keep its tasks.")] = False,
    target_pool: Annotated[str | None, typer.Option(help="The target set's pool, for influence.")] = None,
    optimizer: Annotated[
        list[str] | None, typer.Option(help="STEP=PATH of a checkpoint's optimizer state, if it is not in its folder.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Where the pool's pictures are now, if their folder moved.")
    ] = None,
    gpus: Gpus = "auto",
    sets: Sets = None,
) -> None:
    """Stream the pool through an actor pool into the feature store; finished parts are not computed again.

    Example: `vinnow features --pool pool --checkpoint 100=proxy/checkpoint-100 --kind trajectory --out features`

    `--set` reaches the feature config (`projection.kind=sjlt`, `mode=adam`, `dtype=int8`), `actors.…` and `ray.…`.

    Rows whose pictures could not be read are tried again by the next call; more refused rows than `--set max_refused=0.05`
    allows are an error.
    """
    from ...actors.account import LostRowsError
    from ...actors.cluster import RayConfig, ensure_ray
    from ...actors.config import ActorResources, FeatureConfig
    from ...actors.stream import CheckpointError, make_spec, run_features
    from ..runs.placing import find_devices, place_actors, place_precision
    from ..runs.plain_yaml import settings

    values = settings(sets)
    ray = RayConfig.parse(values.pop("ray", {}), "ray")
    devices = find_devices(ray, gpus)
    resources = ActorResources.parse(place_actors(values.pop("actors", {}), devices), "actors")
    values = place_precision(values, devices) if resources.gpus_per_actor else values
    called = {} if name is None else {"name": name}
    config = FeatureConfig.parse({"kind": kind, "image_root": images} | called | values)
    _refuse_unread(config, target_pool, optimizer)
    console.print(f"computing on {devices}", markup=False, soft_wrap=True)
    states = {c.step: c.path for c in map(_checkpoint, optimizer or [])}
    checkpoints = [replace(c, optimizer=states.pop(c.step, None)) for c in map(_checkpoint, checkpoint)]
    if states:
        raise InputError(f"--optimizer names steps {sorted(states)} that no --checkpoint has.")
    spec = make_spec(pool, checkpoints, config, out, targets=targets, target_pool=target_pool)
    try:
        with bar(f"{config.name} features", "parts") as tell:
            report = run_features(spec, resources, tell, lambda: ensure_ray(ray))
    except (CheckpointError, LostRowsError) as error:
        _print_features(error.report)
        raise
    _print_features(report)


def _refuse_unread(config: "FeatureConfig", target_pool: str | None, optimizer: list[str] | None) -> None:
    """Refuse options that this kind of features would not read, as if they had been used."""
    from ...actors.kind import kind_of

    kind, mode = kind_of(config), getattr(config, "mode", None)
    if target_pool and not kind.aims:
        raise InputError(f"--target-pool is for --kind influence; {config.kind} reads none.")
    if optimizer and not kind.reads_optimizer:
        way_out = "" if mode is None else f" mode {mode!r} reads none: set mode=adam."
        raise InputError(f"--optimizer is for gradients in the modes adam and less_adam.{way_out}")


def _print_features(report: "FeatureReport") -> None:
    show(
        f"{report.parts} parts written, {report.skipped_parts} were there; "
        f"{report.rows} rows computed, {report.seconds:.1f} s"
        + "".join(f", {name.replace('_', ' ')} {value:.3g}" for name, value in report.extra.items())
    )
    # rows of which nothing was written, since no checkpoint could be loaded, were not used
    written = report.parts + report.skipped_parts or report.usage.refused
    for line in (*([report.usage.line()] if written else []), *report.notes):
        show(line)


@app.command()
def select(
    pool: PoolDir,
    selector: Annotated[str, typer.Option(help="random, stratified, less, xmas, …")],
    budget: Annotated[list[str], typer.Option(help="Rows (5000) or a share (10%); repeatable.")],
    out: Out,
    features: Annotated[str | None, typer.Option(help="The feature store, made by `vinnow features`.")] = None,
    targets: Annotated[str | None, typer.Option(help="The targets' feature store (LESS).")] = None,
    label: Annotated[str | None, typer.Option(help="What files call it; left out: SELECTOR[-RULE].")] = None,
    reads: Annotated[
        list[str] | None, typer.Option(help="NEED=NAME: which feature is read, of several of a kind (repeatable).")
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="A pick rule in place of the method's own; its fields: --set pick.…=….")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.")] = 0,
    max_refused: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the pool's rows that may be without features.")
    ] = MAX_REFUSED,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Choose rows: `OUT/picks/LABEL-BUDGET.parquet`, and `.json` in LLaVA's own format.

    Rows that the feature stage refused cannot be chosen; shares count the others.
    """
    from ...select import registry
    from ...select.rule import with_rule
    from ...select.run import budget_rows, select_by
    from ...store.claim import claim
    from ..runs.picking import export_picks, make_view, told, traps
    from ..runs.plain_yaml import settings

    config = settings(sets)
    rule_config = config.pop("pick", {})
    method, name = registry.make(selector, config), label or (selector if rule is None else f"{selector}-{rule}")
    if rule is not None:
        method = with_rule(method, rule, rule_config)
    elif rule_config:
        raise InputError(f"--set pick.… sets {shown(rule_config)} of a pick rule: name it with --rule.")
    needs = method.needs.called(dict(_pair(text, "--reads NEED=NAME") for text in reads or []))
    view = make_view(pool, features, targets, needs, max_refused=max_refused)
    lines = told(pool, features, view)
    if not as_json:
        for line in lines:
            show(line)
    chosen = []
    # a run's picks, a pool's folder and what is yours stay as they are; `picks`: a folder of a time without marks
    with claim(out, "select", "picks", inputs=[pool, features, targets]):
        for share, path in select_by(view, method, name, list(budget), seed, out).items():
            rows = budget_rows(share, len(view.ids))
            row = {"selector": name, "budget": share, "seed": seed, "rows": rows, "picks": path}
            chosen.append(row | {"records": export_picks(pool, path), "told": lines})
            if not as_json:
                show(f"{name} {share}: {rows:,} rows, {path} and {chosen[-1]['records']}")
    said = traps(out, name, seed, view)
    for line in () if as_json else said:
        show(line)
    if as_json:
        show_json([row | {"told": [*lines, *said]} for row in chosen])


def _pair(text: str, wanted: str) -> tuple[str, str]:
    name, sep, value = text.partition("=")
    if not sep or not name or not value:
        raise InputError(f"give {wanted}, not {shown(text)}.")
    return name, value


def _checkpoint(text: str) -> "CheckpointRef":
    from ...actors.config import CheckpointRef

    step, sep, path = text.partition("=")
    if not sep or not re.fullmatch(r"[0-9]{1,12}", step):
        raise InputError(f"--checkpoint and --optimizer want STEP=FOLDER, not {shown(text)}.")
    return CheckpointRef(int(step), path)
