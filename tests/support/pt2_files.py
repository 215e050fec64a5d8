"""A .pt2 file taken apart, changed and written again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Records = dict[str, bytes]


def records(path: Path) -> Records:
    with zipfile.ZipFile(path) as archive:
        return {entry.filename.split("/", 1)[1]: archive.read(entry) for entry in archive.infolist()}


def write(path: Path, content: Records, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(f"root/{name}", data)
    return path


MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def edit(content: Records, name: str, change: Callable[[Any], None]) -> None:
    table = json.loads(content[name])
    change(table)
    content[name] = json.dumps(table).encode()


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def code(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def nodes(table: Any) -> list[Any]:
    return table["graph_module"]["graph"]["nodes"]


def retarget(target: str, *arguments: dict[str, Any]) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        inputs = [{"name": f"a{i}", "arg": argument, "kind": 1} for i, argument in enumerate(arguments)]
        nodes(table)[1] = {**nodes(table)[1], "target": target, "inputs": inputs}

    return change


def weight(**changes: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        entry = next(iter(table["config"].values()))
        for name, value in changes.items():
            (entry if name in entry else entry["tensor_meta"])[name] = value

    return change
