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
import math
import operator
import os
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

SCHEMA_MAJOR = 8
ARCHIVE_VERSION = "0"

# Functional operators of deterministic image generators, before and after decomposition; `relu_` is allowed because
# `relu` is. No random draws (a score is a function of the latent alone), no strings that name files, no raw storages.
_NAMES = """
    linear addmm mm bmm matmul baddbmm mv dot outer einsum t numpy_T mT
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
    batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training native_batch_norm
    _native_batch_norm_legit_functional instance_norm group_norm native_group_norm layer_norm native_layer_norm
    rms_norm _fused_rms_norm linalg_vector_norm norm _weight_norm _weight_norm_interface
    dropout feature_dropout alpha_dropout native_dropout
    relu relu6 leaky_relu prelu _prelu_kernel rrelu elu selu celu gelu silu mish glu sigmoid log_sigmoid
    log_sigmoid_forward hardsigmoid hardswish hardtanh tanh softplus softshrink hardshrink threshold softmax _softmax
    log_softmax _log_softmax
    add sub rsub mul div true_divide floor_divide remainder fmod pow square sqrt rsqrt reciprocal neg abs sign sin cos
    tan asin acos atan atan2 sinh cosh asinh acosh atanh exp exp2 expm1 log log2 log10 log1p erf erfc floor ceil round
    trunc frac clamp clamp_min clamp_max clip lerp addcmul addcdiv maximum minimum where masked_fill nan_to_num eq ne
    lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not isnan isinf isfinite
    mean sum prod var std var_mean amax amin max min any all cumsum logsumexp argmax argmin
    view _unsafe_view view_as reshape reshape_as flatten unflatten permute transpose movedim moveaxis swapaxes squeeze
    unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile cat concat stack chunk split
    split_with_sizes narrow slice select unbind diagonal flip roll rot90 contiguous clone alias detach lift_fresh
    lift_fresh_copy to _to_copy type_as copy fill zero index index_put index_select gather slice_scatter
    select_scatter embedding one_hot eye diag diag_embed tril triu
    pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d _pad_circular
    pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d max_pool2d_with_indices im2col col2im
    grid_sampler grid_sampler_2d affine_grid_generator scaled_dot_product_attention
    zeros ones full arange linspace scalar_tensor zeros_like ones_like full_like new_zeros new_ones new_full
    sym_size sym_numel sym_stride
"""
ALLOWED = frozenset(_NAMES.split())

# Run-time checks of what export assumed. They compute nothing, and they pin the dtype and device of the export.
CHECKS = frozenset(
    [
        "_assert_async",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    ]
)

GRAD_MODE = "torch.ops.higher_order.wrap_with_set_grad_enabled"
"""A call of a graph of its own: what stood under torch.no_grad."""

# Arithmetic on sizes. No `pow` and no shifts: a file could ask them for numbers without end.
_ARITHMETIC = ["add", "sub", "mul", "floordiv", "truediv", "mod", "neg"]
_COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"]
_SYMBOLIC = ["sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite"]
_SIZE_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "math.trunc": math.trunc,
    **{f"_operator.{name}": getattr(operator, name) for name in _ARITHMETIC + _COMPARISONS},
    **{f"torch.{name}": getattr(torch, name) for name in _SYMBOLIC},
}

# The numbering of torch/_export/serde/schema.py.
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_CONSTANT_ARGUMENTS = ("as_none", "as_int", "as_float", "as_bool", "as_string")
_SYMBOLS = ("as_sym_int", "as_sym_float", "as_sym_bool")
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


@dataclass
class Lifted:
    """A program whose state is passed in: the common form of a live and of a saved one.

    `graph` has one placeholder for each name in `inputs`, in that order; None stands for the latent. Its output is the
    image node itself. `sizes` are the sizes of the latent (B, *latent) at the export, `dynamic` says that B is free.
    """

    graph: fx.Graph
    inputs: list[str | None]
    sizes: tuple[int, ...]
    dynamic: bool
    dtype: torch.dtype
    device: torch.device
    state: dict[str, torch.Tensor] = field(default_factory=dict)  # nn.Parameter where it is one
    transient: set[str] = field(default_factory=set)  # buffers that are not part of the state dict


def read_pt2(path: str | os.PathLike[str]) -> Lifted:
    """The program saved at `path`. ValueError with the file's name where it is damaged, unsafe or not supported."""
    name = os.fspath(path)
    try:
        if other := _other_kind(name):
            raise ValueError(other)
        with open(name, "rb") as file, zipfile.ZipFile(file) as archive:
            return _Reader(_Records(archive, os.fstat(file.fileno()).st_size)).lifted()
    except ValueError as error:  # includes JSON and UTF-8 errors
        raise ValueError(f"{name}: {error}") from error
    except _DAMAGE as error:
        raise ValueError(f"{name}: not a readable .pt2 program ({type(error).__name__}: {error})") from error


_LOAD_GENERATOR = "pass what adgan_fast.training.load_generator(path) returns"
_LOAD_STATE = "build the module in your program, load its weights with module.load_state_dict"
_PICKLES = (".pt", ".pth", ".pkl", ".ckpt")


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
    if "data.pkl" in names or (head[:1] == b"\x80" and head[1:2] <= b"\5") or (not names and name.endswith(_PICKLES)):
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

    def lifted(self) -> Lifted:
        state, transient = self._state()
        inputs, latent = self._placeholders(state, transient)
        for node in self.body["nodes"]:
            self._call(node)
        self._output()
        meta = self.body["tensor_values"][latent]
        sizes = meta["sizes"]
        if not sizes:
            raise ValueError("its input is a single number, expected a latent (B, *latent)")
        return Lifted(
            graph=self.graph,
            inputs=inputs,
            sizes=tuple(_example_size(size) for size in sizes),
            dynamic="as_int" not in sizes[0],
            dtype=_dtype(meta["dtype"]),
            device=_device(meta["device"]),
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
                tensor = _tensor(name, entry["tensor_meta"], storages[record])
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
            kind, content = _only(spec)
            if kind in ("parameter", "buffer", "tensor_constant"):
                name, placeholder = content[f"{kind}_name"], content["arg"]["name"]
                if name not in state:
                    raise ValueError(f"the graph uses {kind} {name!r}, which the archive does not hold")
                if kind == "buffer" and not content["persistent"]:
                    transient.add(name)
                self.values[placeholder] = self.graph.placeholder(f"t{len(inputs)}")
                inputs.append(name)
            elif kind == "user_input":
                form, value = _only(content["arg"])
                if form == "as_tensor":
                    latents.append(value["name"])
                    self.values[value["name"]] = self.graph.placeholder("z")
                    inputs.append(None)
                elif form not in _CONSTANT_ARGUMENTS:  # a constant argument is burnt into the graph already
                    raise ValueError(f"an input of kind {form!r:.40}; a generator takes one latent tensor")
            elif kind != "constant_input":
                raise ValueError(f"an input of kind {kind!r:.40} is not supported")
        if len(latents) != 1:
            raise ValueError(f"takes {len(latents)} tensors, a generator takes one latent (B, *latent)")
        return inputs, latents[0]

    def _output(self) -> None:
        kinds = [_only(spec) for spec in self.signature["output_specs"]]
        for kind, content in kinds:
            if kind.endswith("mutation"):
                target = content.get("buffer_name") or content.get("parameter_name") or content.get("user_input_name")
                raise ValueError(f"writes into {target!r}: a program in training mode. Export after gen.eval()")
        if len(kinds) != 1 or kinds[0][0] != "user_output":
            raise ValueError(f"returns {len(kinds)} values, a generator returns one image tensor")
        form, value = _only(kinds[0][1]["arg"])
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
        if isinstance(target, str) and target in _SIZE_ARITHMETIC:
            function = _SIZE_ARITHMETIC[target]
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
        form, enabled = _only(node["inputs"][0]["arg"])
        kind, block = _only(node["inputs"][1]["arg"])
        if form != "as_bool" or kind != "as_graph":
            raise ValueError(f"{label:.200} is not called with a mode and a graph")
        given = [self._argument(entry["arg"], label) for entry in node["inputs"][2:]]
        outer, body = self.values, block["graph"]
        self.values = {_only(name)[1]["name"]: value for name, value in zip(body["inputs"], given, strict=True)}
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
        kind, value = _only(argument)
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
                return _typed(value, int)
            case "as_ints":
                return [_typed(item, int) for item in value]
            case "as_bool":
                return _typed(value, bool)
            case "as_bools":
                return [_typed(item, bool) for item in value]
            case "as_float":
                return float(value)  # also "Infinity", "-Infinity" and "NaN"
            case "as_floats":
                return [float(item) for item in value]
            case "as_string":
                return _typed(value, str)
            case "as_scalar_type":
                return _dtype(value)
            case "as_memory_format":
                return _MEMORY_FORMATS[value]
            case "as_device":
                return _device(value)
            case "as_layout" if value == 7:
                return torch.strided
        raise ValueError(f"{label:.200} has an argument of kind {kind!r:.40}, which is not supported")

    def _symbol(self, argument: dict[str, Any], label: str) -> Any:
        """An item that is either a name in the graph or a number. No expression is ever read."""
        kind, value = _only(argument)
        if kind == "as_name":
            return self._value(value)
        return self._argument({kind: value}, label)

    def _value(self, name: Any) -> fx.Node:
        if not isinstance(name, str) or name not in self.values:
            raise ValueError(f"the graph uses {name!r:.80} before it is made")
        return self.values[name]

    def _bind(self, output: dict[str, Any], made: fx.Node, label: str, index: int | None = None) -> None:
        """Give `made`, or its part `index`, the name by which later nodes ask for it."""
        kind, value = _only(output)
        if kind == "as_none":
            return
        part = made if index is None else self.graph.call_function(operator.getitem, (made, index))
        if kind == "as_tensor":
            self.values[value["name"]] = part
        elif kind in _SYMBOLS:
            self.values[value["as_name"]] = part
        elif kind == "as_tensors" and index is None:
            for i, item in enumerate(value):
                self.values[item["name"]] = self.graph.call_function(operator.getitem, (made, i))
        else:
            raise ValueError(f"{label:.200} has an output of kind {kind!r:.40}, which is not supported")


def stopped(graph: fx.Graph, value: fx.Node) -> fx.Node:
    """`value` without its gradient, as what is made under torch.no_grad has none."""
    return graph.call_function(torch.ops.aten.detach.default, (value,))


def _only(union: Any) -> tuple[str, Any]:
    """The one (kind, value) of a tagged union."""
    if not isinstance(union, dict) or len(union) != 1:
        raise ValueError(f"malformed entry {union!r:.80}")
    return next(iter(union.items()))


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r:.80} where a {kind.__name__} belongs")
    return value


def _dtype(number: Any) -> torch.dtype:
    if number not in _DTYPES:
        raise ValueError(f"dtype number {number!r:.40} is not supported")
    return _DTYPES[number]


def _device(entry: dict[str, Any]) -> torch.device:
    index = entry.get("index")
    kind = _typed(entry["type"], str)
    return torch.device(kind) if index is None else torch.device(kind, _typed(index, int))


def _example_size(size: Any) -> int:
    """A size as a number: itself, or the one it had at the export. The expression beside it is not read."""
    kind, value = _only(size)
    if kind == "as_expr":
        hint = value.get("hint")
        if hint is None:
            raise ValueError("a size of its latent is not known; export with an example input")
        kind, value = _only(hint)
    if kind != "as_int" or _typed(value, int) < 0:
        raise ValueError(f"malformed size {size!r:.80}")
    return value


def _tensor(name: str, meta: dict[str, Any], storage: bytearray) -> torch.Tensor:
    """A view of `storage` (not a copy) with the dtype, sizes, strides and offset of `meta`, all of them checked."""
    dtype = _dtype(meta["dtype"])
    if meta["layout"] != 7:
        raise ValueError(f"{name!r} is not a dense tensor")
    sizes = [_typed(size["as_int"], int) for size in meta["sizes"]]
    strides = [_typed(stride["as_int"], int) for stride in meta["strides"]]
    offset = _typed(meta["storage_offset"]["as_int"], int)
    if len(sizes) != len(strides) or min([*sizes, *strides, offset]) < 0:
        raise ValueError(f"{name!r} has sizes {sizes}, strides {strides} and offset {offset}")
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    needed = (last + 1) * dtype.itemsize
    if needed > len(storage):
        raise ValueError(f"{name!r} needs {needed} bytes for its sizes {sizes}, its record has {len(storage)}")
    if len(storage) % dtype.itemsize:
        raise ValueError(f"the record of {name!r} has {len(storage)} bytes, no multiple of {dtype.itemsize}")
    return torch.frombuffer(storage, dtype=dtype).as_strided(sizes, strides, offset)
