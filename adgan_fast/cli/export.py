"""``adgan-fast export``: the rows of a finished job as one file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ..files import csv_writer, replacing
from . import say
from .given import Failure, Mistake

SUFFIXES = (".csv", ".parquet", ".json")


def export(
    job: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the job: what score was given as --out")],
    to: Annotated[
        Path, typer.Argument(metavar="FILE", help=f"by its suffix: {', '.join(SUFFIXES)}; replaced if there")
    ],
    spreadsheet: Annotated[
        bool,
        typer.Option("--spreadsheet", help="of a .csv: a ' before texts that a spreadsheet would run as formulas"),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing.")] = False,
) -> None:
    """Write the scores of a finished job to one file, in the order of its images.

    \b
    adgan-fast export scores scores.csv
    adgan-fast export scores scores.parquet

    A row for each image: id, label, score and what else docs/jobs.md lists. Parts are checked as they are read.
    Reconstructions, where they were kept, are in .parquet alone. A .csv has texts as they are: one that begins with =,
    +, - or @ is run as a formula by a spreadsheet that opens the file. A line on stderr says so; --spreadsheet writes
    a ' before such, which are then no longer the ids of the job.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments.
    """
    from .. import jobs

    if to.suffix.lower() not in SUFFIXES:
        raise Mistake(f"{to}: its suffix has to be one of {', '.join(SUFFIXES)}")
    if not to.parent.is_dir():
        raise Mistake(f"{to}: there is no folder {to.parent}")
    csv_ = to.suffix.lower() == ".csv"
    if spreadsheet and not csv_:
        raise Mistake(f"--spreadsheet is for a .csv, got {to}")
    texts = Texts(spreadsheet)
    try:
        # Reconstructions by pieces, and only where they are written.
        columns = None if to.suffix.lower() == ".parquet" else jobs.plain_columns(job)
        rows = written(jobs.tables(job, columns, pieces=True), to, texts)
    except FileNotFoundError as error:
        raise Mistake(str(error)) from error
    except (jobs.JobError, OSError) as error:
        raise Failure(str(error)) from error
    if texts.formulas and not spreadsheet:
        remedy = "--spreadsheet writes a ' before them, or export to .parquet or .json"
        say.line(f"warning: {texts.formulas} texts begin like a formula, which a spreadsheet would run: {remedy}")
    if not quiet:
        say.line(f"{rows} rows in {to}")


class Texts:
    """Texts of a .csv; those that a spreadsheet takes for formulas (OWASP, "CSV Injection") are counted, or quoted."""

    def __init__(self, quoted: bool) -> None:
        self._quoted, self.formulas = quoted, 0

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
            return value
        self.formulas += 1
        return f"'{value}" if self._quoted else value


def written(tables: Iterator[Any], to: Path, texts: Texts) -> int:
    """Write pyarrow tables, one after the other, to a file of one of SUFFIXES, whole or not at all; how many rows."""
    kind = to.suffix.lower()
    with replacing(to) as file:
        if kind == ".parquet":
            return _parquet(tables, file)
        text = io.TextIOWrapper(file, "utf-8", newline="")
        rows = _csv(tables, text, texts) if kind == ".csv" else _json(tables, text)
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


def _csv(tables: Iterator[Any], text: IO[str], texts: Texts) -> int:
    writer, rows = csv_writer(text), 0
    for table in tables:
        names, columns = _columns(table)
        if not rows:
            writer.writerow(names)
        writer.writerows(zip(*([texts(value) for value in column] for column in columns), strict=True))
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
