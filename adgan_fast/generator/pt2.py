"""Saved programs (`.pt2`) read without running anything that is in the file.

`torch.export.load` unpickles the sample inputs and pickled weights and evaluates the strings of symbolic shapes. This
reader does neither. The archive is a zip of stored (never compressed) records; of these it reads the JSON description
of the graph, the JSON tables of weights and constants, and their raw bytes. Operators come from the explicit list
`ALLOWED`: a pattern such as `torch.ops.aten.*` would not do, because that namespace also holds `aten::from_file`, which
creates, resizes and maps any file it is told to.

What is supported: archives of version 0 with schema 8, as `torch.export.save` of torch 2.13 writes them, and those of
other releases that write the same two numbers and keep weights as raw bytes. Refused by name are archives with a
pickled state (`data/weights/<name>.pt`, `serialized_state_dict.pt`), compiled packages, several programs in one archive
and pickled tensors. The work and the memory that a program asks for when it is *called* are its own, and not bounded
here; `load_exported` calls it a few times.
"""

from __future__ import annotations

import json
import operator
import os
import re
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from .pt2_operators import ALLOWED, CHECKS, GRAD_MODE, SIZE_ARITHMETIC
from .pt2_schema import (
    CONSTANT_ARGUMENTS,
    MEMORY_FORMATS,
    SYMBOLS,
    device_of,
    dtype_of,
    example_size,
    only,
    tensor_of,
    typed,
)
from .stateless import Stateless, stopped

SCHEMA_MAJOR = 8
ARCHIVE_VERSION = "0"
_TARGET = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
# What reading a damaged or hostile file can raise; all of it becomes a ValueError that names the file.
_DAMAGE = (
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    RuntimeError,  # includes RecursionError (nested JSON) and torch's own errors
    OverflowError,
    NotImplementedError,
    EOFError,
    zipfile.BadZipFile,
)


def read_pt2(path: str | os.PathLike[str]) -> Stateless:
    """The program saved at `path`. ValueError with the file's name where it is damaged, unsafe or not supported."""
    name = os.fspath(path)
    try:
        if other := _other_kind(name):
            raise ValueError(other)
        with open(name, "rb") as file, zipfile.ZipFile(file) as archive:
            return _Reader(_Records(archive, os.fstat(file.fileno()).st_size)).stateless()
    except ValueError as error:  # includes JSON and UTF-8 errors
        raise ValueError(f"{name}: {error}") from error
    except _DAMAGE as error:
        raise ValueError(f"{name}: not a readable .pt2 program ({type(error).__name__}: {error})") from error


_LOAD_GENERATOR = "pass what adgan_fast.training.load_generator(path) returns"
_LOAD_STATE = "build the module in your program, load its weights with module.load_state_dict"
PICKLES = (".pt", ".pth", ".pkl", ".ckpt")


def _other_kind(name: str) -> str:
    """Where a path is plainly of something else that generators are kept in: what it is, and the remedy; else ""."""
    if os.path.isdir(name):
        return f"a folder, not a .pt2 file. If it is of a training run, {_LOAD_GENERATOR}"
    if os.path.basename(name) == "checkpoint.json":
        return f"belongs to a checkpoint of a training run, not a .pt2 file: {_LOAD_GENERATOR}"
    with open(name, "rb") as file:
        head = file.read(1 << 16)
        entries = zipfile.ZipFile(file).namelist() if zipfile.is_zipfile(file) else []
    names = {entry.partition("/")[2] for entry in entries}
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000:  # the longest header safetensors allows
        if b'"adgan_fast"' in head:
            return f"a saved generator, weights without a program: {_LOAD_GENERATOR}"
        load = f"{_LOAD_STATE}(safetensors.torch.load_file(path)), and pass it"
        return f"a safetensors file, weights without a program: {load}"
    if {"data.pkl", "constants.pkl"} <= names:
        return "TorchScript, not a .pt2 file: pass the module that it was made from"
    # The second byte of a pickle is its protocol. Older ones begin with any letter: there the name has to tell.
    if "data.pkl" in names or (head[:1] == b"\x80" and head[1:2] <= b"\5") or (not names and name.endswith(PICKLES)):
        load = f"{_LOAD_STATE}(torch.load(path, weights_only=True)), and pass it"
        return f"a pickle (weights or a module, of torch.save), which can run code and is never read: {load}"
    return ""


class _Records:
    """The records of the archive, by their name below its root folder."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        self._archive = archive
        entries = archive.infolist()
        roots = {entry.filename.split("/")[0] for entry in entries}
        if len(roots) != 1:
            raise ValueError(f"not a .pt2 archive: {len(roots)} folders at its root instead of one")
        self._prefix = roots.pop() + "/"
        self._entries = {entry.filename.removeprefix(self._prefix): entry for entry in entries}
        if len(self._entries) != len(entries):
            raise ValueError("the archive holds two records of the same name")
        for entry in entries:
            # torch stores records as they are. A compressed one may unfold to any size, so it is not read at all.
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"record {entry.filename!r} is compressed; torch.export.save stores records plainly")
        total = sum(entry.file_size for entry in entries)
        if total > file_bytes:
            raise ValueError(f"its records claim {total} bytes but the file has {file_bytes}")

    def names(self) -> list[str]:
        return list(self._entries)

    def bytes(self, name: str) -> bytes:
        if name not in self._entries:
            raise ValueError(f"record {name!r} is missing")
        return self._archive.read(self._entries[name])  # checks the CRC

    def text(self, name: str) -> str:
        return self.bytes(name).decode("utf-8")

    def json(self, name: str) -> Any:
        return json.loads(self.text(name))


class _Reader:
    def __init__(self, records: _Records) -> None:
        self.records = records
        self.model = self._check_format()
        program = records.json(f"models/{self.model}.json")
        major = program["schema_version"]["major"]
        if major != SCHEMA_MAJOR:
            raise ValueError(
                f"written with export schema {major} by torch {program.get('torch_version', 'unknown')!s:.40}; "
                f"this reader knows schema {SCHEMA_MAJOR}. Save it again with a current torch"
            )
        self.signature = program["graph_module"]["signature"]
        self.body = program["graph_module"]["graph"]
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}  # by their name in the file

    def _check_format(self) -> str:
        records, names = self.records, self.records.names()
        if "archive_format" not in names or records.bytes("archive_format") != b"pt2":
            raise ValueError(
                "not a .pt2 archive of the present format (no record 'archive_format' that says 'pt2'). "
                "If an older torch wrote it, save it again with a current one"
            )
        version = records.text("archive_version") if "archive_version" in names else "none"
        if version.strip() != ARCHIVE_VERSION:
            raise ValueError(f"archive version {version.strip()!r:.40}, supported is {ARCHIVE_VERSION!r}")
        order = records.text("byteorder").strip() if "byteorder" in names else "little"
        if order != sys.byteorder:
            raise ValueError(f"its weights are {order!r:.40}-endian, this computer is {sys.byteorder}-endian")
        models = [n.removeprefix("models/").removesuffix(".json") for n in names if re.fullmatch(r"models/.+\.json", n)]
        if len(models) == 1:
            return models[0]
        if any(n.startswith("data/aotinductor/") for n in names):
            raise ValueError("a compiled (AOTInductor) package holds machine code; use torch.export.save instead")
        raise ValueError(f"holds {len(models)} programs, expected one")

    def stateless(self) -> Stateless:
        state, transient = self._state()
        inputs, latent = self._placeholders(state, transient)
        for node in self.body["nodes"]:
            self._call(node)
        self._output()
        meta = self.body["tensor_values"][latent]
        sizes = meta["sizes"]
        if not sizes:
            raise ValueError("its input is a single number, expected a latent (B, *latent)")
        return Stateless(
            graph=self.graph,
            inputs=inputs,
            sizes=tuple(example_size(size) for size in sizes),
            dynamic="as_int" not in sizes[0],
            dtype=dtype_of(meta["dtype"]),
            device=device_of(meta["device"]),
            state=state,
            transient=transient,
        )

    # ---- weights and constants

    def _state(self) -> tuple[dict[str, torch.Tensor], set[str]]:
        """Every tensor of the archive under its dotted name. Tensors of one record share its memory, as they did."""
        state: dict[str, torch.Tensor] = {}
        for folder, kind in (("data/weights/", "weights"), ("data/constants/", "constants")):
            if f"{folder}{self.model}.pt" in self.records.names():
                raise ValueError(f"its {kind} are one pickle (an older format); save it again with a current torch")
            table = self.records.json(f"{folder}{self.model}_{kind}_config.json")["config"]
            storages: dict[str, bytearray] = {}
            for name, entry in table.items():
                if entry["use_pickle"] is not False:
                    raise ValueError(f"{name!r} is stored as a pickle, which can run code when it is read; refused")
                record = f"{folder}{entry['path_name']}"
                if record not in storages:
                    storages[record] = bytearray(self.records.bytes(record))
                tensor = tensor_of(name, entry["tensor_meta"], storages[record])
                if entry["is_param"]:
                    gradient = bool(entry["tensor_meta"]["requires_grad"])
                    tensor = torch.nn.Parameter(tensor, requires_grad=gradient)
                state[name] = tensor
        constants = self.records.json(f"data/constants/{self.model}_constants_config.json")["config"]
        return state, set(constants)

    def _placeholders(self, state: dict[str, torch.Tensor], transient: set[str]) -> tuple[list[str | None], str]:
        inputs: list[str | None] = []
        latents: list[str] = []
        for spec in self.signature["input_specs"]:
            kind, content = only(spec)
            if kind in ("parameter", "buffer", "tensor_constant"):
                name, placeholder = content[f"{kind}_name"], content["arg"]["name"]
                if name not in state:
                    raise ValueError(f"the graph uses {kind} {name!r}, which the archive does not hold")
                if kind == "buffer" and not content["persistent"]:
                    transient.add(name)
                self.values[placeholder] = self.graph.placeholder(f"t{len(inputs)}")
                inputs.append(name)
            elif kind == "user_input":
                form, value = only(content["arg"])
                if form == "as_tensor":
                    latents.append(value["name"])
                    self.values[value["name"]] = self.graph.placeholder("z")
                    inputs.append(None)
                elif form not in CONSTANT_ARGUMENTS:  # a constant argument is burnt into the graph already
                    raise ValueError(f"an input of kind {form!r:.40}; a generator takes one latent tensor")
            elif kind != "constant_input":
                raise ValueError(f"an input of kind {kind!r:.40} is not supported")
        if len(latents) != 1:
            raise ValueError(f"takes {len(latents)} tensors, a generator takes one latent (B, *latent)")
        return inputs, latents[0]

    def _output(self) -> None:
        kinds = [only(spec) for spec in self.signature["output_specs"]]
        for kind, content in kinds:
            if kind.endswith("mutation"):
                target = content.get("buffer_name") or content.get("parameter_name") or content.get("user_input_name")
                raise ValueError(f"writes into {target!r}: a program in training mode. Export after gen.eval()")
        if len(kinds) != 1 or kinds[0][0] != "user_output":
            raise ValueError(f"returns {len(kinds)} values, a generator returns one image tensor")
        form, value = only(kinds[0][1]["arg"])
        if form != "as_tensor":
            raise ValueError(f"returns a {form!r:.40}, a generator returns one image tensor")
        self.graph.output(self._value(value["name"]))

    # ---- nodes

    def _call(self, node: dict[str, Any]) -> None:
        target, label = node["target"], f"node {node.get('name') or '?'!s}: {node['target']}"
        matched = _TARGET.fullmatch(target) if isinstance(target, str) else None
        if matched and matched[1] in CHECKS:
            return
        function: Callable[..., Any]
        kwargs: dict[str, Any] = {}
        if target == GRAD_MODE:
            return self._in_line(node, label)
        if isinstance(target, str) and target in SIZE_ARITHMETIC:
            function = SIZE_ARITHMETIC[target]
            args = [self._argument(entry["arg"], label) for entry in node["inputs"]]
        elif matched and (matched[1] in ALLOWED or (matched[1][-1] == "_" and matched[1][:-1] in ALLOWED)):
            overload = self._overload(matched[1], matched[2], label)
            function = overload
            args, kwargs = self._arguments(node["inputs"], overload, label)
        else:
            raise ValueError(
                f"{label:.200} is not among the operators that a saved generator may use (aten operators without side "
                "effects or randomness, and arithmetic on sizes). If you trust the file, pass torch.export.load(file)"
            )
        made = self.graph.call_function(function, tuple(args), kwargs)
        outputs = node["outputs"]
        if len(outputs) == 1:
            self._bind(outputs[0], made, label)
        else:
            for i, output in enumerate(outputs):
                self._bind(output, made, label, i)

    def _in_line(self, node: dict[str, Any], label: str) -> None:
        """The nodes of a block under torch.no_grad (or enable_grad) in the place of the call."""
        form, enabled = only(node["inputs"][0]["arg"])
        kind, block = only(node["inputs"][1]["arg"])
        if form != "as_bool" or kind != "as_graph":
            raise ValueError(f"{label:.200} is not called with a mode and a graph")
        given = [self._argument(entry["arg"], label) for entry in node["inputs"][2:]]
        outer, body = self.values, block["graph"]
        self.values = {only(name)[1]["name"]: value for name, value in zip(body["inputs"], given, strict=True)}
        for inner in body["nodes"]:
            self._call(inner)
        made = [self._argument(output, label) for output in body["outputs"]]
        self.values = outer
        for output, value in zip(node["outputs"], made, strict=True):
            self._bind(output, value if enabled is True else stopped(self.graph, value), label)

    def _overload(self, name: str, overload: str, label: str) -> torch._ops.OpOverload:
        packet = getattr(torch.ops.aten, name, None)
        if packet is None or overload not in packet.overloads() or overload == "out" or overload.endswith("_out"):
            raise ValueError(f"{label:.200} does not exist in torch {torch.__version__}")
        return getattr(packet, overload)

    def _arguments(
        self, given: list[dict[str, Any]], overload: torch._ops.OpOverload, label: str
    ) -> tuple[list[Any], dict[str, Any]]:
        """Positional arguments in the order of the schema, the others by name."""
        values = {entry["name"]: (self._argument(entry["arg"], label), entry.get("kind")) for entry in given}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for i, argument in enumerate(overload._schema.arguments):
            if argument.name not in values:
                continue
            value, kind = values.pop(argument.name)
            if len(args) == i and not argument.kwarg_only and kind != 2:
                args.append(value)
            else:
                kwargs[argument.name] = value
        if values:
            raise ValueError(f"{label:.200} takes no argument {sorted(map(str, values))[0]!r:.60}")
        return args, kwargs

    def _argument(self, argument: dict[str, Any], label: str) -> Any:
        kind, value = only(argument)
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self._value(value["name"])
            case "as_tensors":
                return [self._value(item["name"]) for item in value]
            case "as_optional_tensor" | "as_sym_int" | "as_sym_float" | "as_sym_bool":
                return self._symbol(value, label)
            case "as_optional_tensors" | "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
                return [self._symbol(item, label) for item in value]
            case "as_int":
                return typed(value, int)
            case "as_ints":
                return [typed(item, int) for item in value]
            case "as_bool":
                return typed(value, bool)
            case "as_bools":
                return [typed(item, bool) for item in value]
            case "as_float":
                return float(value)  # also "Infinity", "-Infinity" and "NaN"
            case "as_floats":
                return [float(item) for item in value]
            case "as_string":
                return typed(value, str)
            case "as_scalar_type":
                return dtype_of(value)
            case "as_memory_format":
                return MEMORY_FORMATS[value]
            case "as_device":
                return device_of(value)
            case "as_layout" if value == 7:
                return torch.strided
        raise ValueError(f"{label:.200} has an argument of kind {kind!r:.40}, which is not supported")

    def _symbol(self, argument: dict[str, Any], label: str) -> Any:
        """An item that is either a name in the graph or a number. No expression is ever read."""
        kind, value = only(argument)
        if kind == "as_name":
            return self._value(value)
        return self._argument({kind: value}, label)

    def _value(self, name: Any) -> fx.Node:
        if not isinstance(name, str) or name not in self.values:
            raise ValueError(f"the graph uses {name!r:.80} before it is made")
        return self.values[name]

    def _bind(self, output: dict[str, Any], made: fx.Node, label: str, index: int | None = None) -> None:
        """Give `made`, or its part `index`, the name by which later nodes ask for it."""
        kind, value = only(output)
        if kind == "as_none":
            return
        part = made if index is None else self.graph.call_function(operator.getitem, (made, index))
        if kind == "as_tensor":
            self.values[value["name"]] = part
        elif kind in SYMBOLS:
            self.values[value["as_name"]] = part
        elif kind == "as_tensors" and index is None:
            for i, item in enumerate(value):
                self.values[item["name"]] = self.graph.call_function(operator.getitem, (made, i))
        else:
            raise ValueError(f"{label:.200} has an output of kind {kind!r:.40}, which is not supported")
