"""The tables that cross a wall between rooms: Arrow schemas, and a check at both ends.

Legend: `sample_id` is the content id of a POOL row (`ids.py`); row numbers never cross a wall. Scores: higher is
better. `extra` holds what the source record carried beyond LLaVA's keys, as a JSON object. `n_tokens`: of the turns'
texts alone, without template and pictures; null where ingest had no tokenizer. `duplicate_of`: the first row with the
same content. `image_hash`: difference hash of the (first) picture, 64 bits; null where it was not decoded. `cluster`: what
a question shares with others that are right and wrong together with it, its picture; null where that is not known.
"""

import os

import pyarrow as pa

from .errors import DamagedError, DuplicateRowsError, InputError
from .files import reading_parquet, write_parquet
from .quantise import CODES, code_width

TURN = pa.struct([pa.field("from", pa.string(), nullable=False), pa.field("value", pa.string(), nullable=False)])


def _schema(**columns: pa.DataType | pa.Field) -> pa.Schema:
    fields = [c.with_name(n) if isinstance(c, pa.Field) else pa.field(n, c, nullable=False) for n, c in columns.items()]
    return pa.schema(fields)


def _nullable(kind: pa.DataType) -> pa.Field:
    return pa.field("", kind, nullable=True)


POOL = _schema(
    sample_id=pa.uint64(),
    source=pa.string(),
    task=pa.string(),
    images=pa.list_(pa.string()),
    conversations=pa.list_(TURN),
    n_chars=pa.int64(),
    extra=pa.string(),
    n_tokens=_nullable(pa.int32()),
    duplicate_of=_nullable(pa.uint64()),
    image_hash=_nullable(pa.uint64()),
)
REFUSED = _schema(
    sample_id=_nullable(pa.uint64()),
    source=pa.string(),
    row=pa.int64(),
    reason=pa.string(),
    detail=pa.string(),
)
SCORES = _schema(sample_id=pa.uint64(), target=pa.string(), group=pa.int64(), score=pa.float64())
PICKS = _schema(
    sample_id=pa.uint64(),
    rank=pa.int64(),
    group=pa.int64(),
    score=pa.float64(),
    selector=pa.string(),
    budget=pa.int64(),
    seed=pa.int64(),
)
EVALS = _schema(
    run=pa.string(),
    benchmark=pa.string(),
    task=pa.string(),
    sample=pa.string(),
    correct=pa.bool_(),
    score=pa.float64(),
    answer=pa.string(),
    reference=pa.string(),
    cluster=_nullable(pa.string()),
)
# columns that tables of older versions lack: read as null
_LATER = {"cluster"}
# per layer [L]: `lmar` = (image / n_image) / (text / n_text); `image` and `text` are sums of attention over tokens, means
# over heads and the `n_generated` queries
IMBALANCE = _schema(
    run=pa.string(),
    task=pa.string(),
    sample=pa.string(),
    answer=pa.string(),
    n_generated=pa.int32(),
    n_image=pa.int32(),
    n_text=pa.int32(),
    lmar=pa.list_(pa.float64()),
    image=pa.list_(pa.float64()),
    text=pa.list_(pa.float64()),
)

# answers that have no score until they are judged; `question`: as the benchmark calls it
ANSWERS = _schema(
    run=pa.string(),
    task=pa.string(),
    sample=pa.string(),
    question=pa.string(),
    prompt=pa.string(),
    answer=pa.string(),
    cluster=pa.string(),
)
# one row a question and order of its two answers; scores are null where `reason` says why there are none
JUDGED = _schema(
    run=pa.string(),
    task=pa.string(),
    sample=pa.string(),
    cluster=pa.string(),
    order=pa.string(),
    score=_nullable(pa.float64()),
    reference_score=_nullable(pa.float64()),
    reason=_nullable(pa.string()),
    answer=pa.string(),
    reference=pa.string(),
    text=pa.string(),
)
# one row a question that a language model answered, too; a letter is null where none could be read, `judged` where nobody
# was asked again, `reason` where nothing is missing
OUTCOMES = _schema(
    run=pa.string(),
    task=pa.string(),
    sample=pa.string(),
    cluster=pa.string(),
    reference=pa.string(),
    model_answer=pa.string(),
    model_letter=_nullable(pa.string()),
    second_answer=pa.string(),
    second_letter=_nullable(pa.string()),
    judged=_nullable(pa.string()),
    letter=_nullable(pa.string()),
    reason=_nullable(pa.string()),
)


def features_schema(dim: int, stored: str) -> pa.Schema:
    """FEATURES(kind, dim): a vector of `dim` numbers per sample and step, and its norm before scaling or quantising.

    `stored`: float32 or float16; int8 and bit1 are codes, a fixed-size binary per row, and the row's scale.
    """
    if stored in CODES:
        columns = {"vec": pa.binary(code_width(stored, dim)), "scale": pa.float32()}
    else:
        columns = {"vec": pa.list_(pa.float16() if stored == "float16" else pa.float32(), dim)}
    return _schema(sample_id=pa.uint64(), step=pa.int64(), n_tokens=pa.int32(), norm=pa.float32(), **columns)


def targets_schema(dim: int, stored: str) -> pa.Schema:
    """TARGETS: FEATURES of a pool of its own, plus the task that each row stands for."""
    return features_schema(dim, stored).append(pa.field("task", pa.string(), nullable=False))


def conform(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """Return the table with exactly the schema's columns, order and types; footer metadata stays.

    A column that came later (`_LATER`) is null in a table that was written before.

    Raises:
        InputError: a column is missing, unknown, of another type, or holds a null where none may be.
    """
    for name in _LATER.intersection(schema.names).difference(table.column_names):
        table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
    missing = [n for n in schema.names if n not in table.column_names]
    unknown = [n for n in table.column_names if n not in schema.names]
    if missing or unknown:
        raise InputError(f"{what}: columns missing: {missing}, unknown: {unknown}; expected {schema.names}.")
    try:
        cast = table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise InputError(f"{what}: wrong column type: {error}.") from error
    nulls = [f.name for f in schema if not f.nullable and cast[f.name].null_count]
    if nulls:
        raise InputError(f"{what}: null values in {nulls}.")
    return cast.replace_schema_metadata(table.schema.metadata)


def refuse_other_columns(actual: pa.Schema, wanted: pa.Schema, path: str, way_out: str) -> None:
    """Refuse a file of ours that lacks a column or has it in another type, before its rows are read.

    Raises:
        DamagedError: names the columns.
    """
    kinds = {n: actual.field(n).type for n in wanted.names if n in actual.names}
    wrong = [f"{f.name} ({kinds.get(f.name, 'missing')}, not {f.type})" for f in wanted if kinds.get(f.name) != f.type]
    if wrong:
        raise DamagedError(f"{path!r} has other columns than it should: {', '.join(wrong)}. {way_out}")


def write_rows(path: str | os.PathLike[str], table: pa.Table, schema: pa.Schema) -> None:
    """Check a table against its schema and write it as one Parquet file, whole or not at all."""
    write_parquet(path, conform(table, schema, os.fspath(path)))


_ANEW = "Delete it, and run the stage that made it again."


def read_rows(path: str | os.PathLike[str], schema: pa.Schema) -> pa.Table:
    """Read one Parquet file and check it against its schema.

    Raises:
        DamagedError: it is no Parquet, or cannot be read to its end.
        InputError: there is no such file, or it does not fit.
    """
    # ParquetFile, not read_table: the dataset reader would add hive columns from folder names like "step=1"
    with reading_parquet(path, _ANEW) as file:
        table = file.read()
    return conform(table, schema, os.fspath(path))


def check_unique(table: pa.Table, what: str) -> None:
    """Refuse a table that holds a `sample_id` twice.

    Raises:
        DuplicateRowsError: names the number of surplus rows.
    """
    distinct = len(table["sample_id"].unique())
    if distinct != table.num_rows:
        raise DuplicateRowsError(f"{what}: {table.num_rows - distinct} of {table.num_rows} rows are there twice.")
