"""``adgan-fast export``: the rows of a finished job as one file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ..files import replacing
from . import say
from .given import Failure, Mistake

SUFFIXES = (".csv", ".parquet", ".json")


def export(
    job: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the job: what score was given as --out")],
    to: Annotated[
        Path, typer.Argument(metavar="FILE", help=f"by its suffix: {', '.join(SUFFIXES)}; replaced if there")
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing.")] = False,
) -> None:
    """Write the scores of a finished job to one file, in the order of its images.

    \b
    adgan-fast export scores scores.csv
    adgan-fast export scores scores.parquet

    A row for each image: id, label, score and what else docs/jobs.md lists. Parts are checked as they are read.
    Reconstructions, where they were kept, are in .parquet alone.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments.
    """
    from .. import jobs

    if to.suffix.lower() not in SUFFIXES:
        raise Mistake(f"{to}: its suffix has to be one of {', '.join(SUFFIXES)}")
    if not to.parent.is_dir():
        raise Mistake(f"{to}: there is no folder {to.parent}")
    try:
        rows = written(jobs.tables(job), to)
    except FileNotFoundError as error:
        raise Mistake(str(error)) from error
    except (jobs.JobError, OSError) as error:
        raise Failure(str(error)) from error
    if not quiet:
        say.line(f"{rows} rows in {to}")


def written(tables: Iterator[Any], to: Path) -> int:
    """Write pyarrow tables, one after the other, to a file of one of SUFFIXES, whole or not at all; how many rows."""
    kind = to.suffix.lower()
    with replacing(to) as file:
        if kind == ".parquet":
            return _parquet(tables, file)
        text = io.TextIOWrapper(file, "utf-8", newline="")
        rows = (_csv if kind == ".csv" else _json)(tables, text)
        text.flush()
        text.detach()  # else it would close the file before that is on disk
        return rows


def _parquet(tables: Iterator[Any], file: IO[bytes]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    first = next(tables, pa.table({}))
    rows = 0
    with parquet.ParquetWriter(file, first.schema, compression="zstd") as writer:
        for table in (first, *tables):
            writer.write_table(table)
            rows += len(table)
    return rows


def _csv(tables: Iterator[Any], text: IO[str]) -> int:
    writer, rows = csv.writer(text, lineterminator="\n"), 0
    for table in tables:
        names, columns = _columns(table)
        if not rows:
            writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
        rows += len(table)
    return rows


def _json(tables: Iterator[Any], text: IO[str]) -> int:
    rows = 0
    for table in tables:
        names, columns = _columns(table)
        for row in zip(*columns, strict=True):
            text.write(",\n" if rows else "[\n")
            text.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False))
            rows += 1
    text.write("\n]\n" if rows else "[]\n")
    return rows


def _columns(table: Any) -> tuple[list[str], list[list[Any]]]:
    """Names and values of the columns of numbers and text; None where there is none."""
    from pyarrow import types

    plain = [field for field in table.schema if not types.is_nested(field.type) and not _is_tensor(field.type)]
    return [field.name for field in plain], [_values(table[field.name], field.type) for field in plain]


def _is_tensor(kind: Any) -> bool:
    import pyarrow as pa

    return isinstance(kind, pa.BaseExtensionType)


def _values(column: Any, kind: Any) -> list[Any]:
    from pyarrow import types

    values = column.to_pylist()
    if not types.is_floating(kind):
        return values
    # Nine digits give a float32 back exactly, seventeen a float64.
    digits = 17 if types.is_float64(kind) else 9
    return [None if x is None else float(f"{x:.{digits}g}") for x in values]
