"""Exported programs, live or saved as `.pt2`, as ordinary generators.

`load_exported` gives a module with the program's parameters and buffers under their own names, so that the rest of the
package (and `torch.func`, `torch.export`, `copy.deepcopy`, `.double()`) treats it as it treats any other generator. It
differs from what `torch.export` itself gives back in three ways: no code of the file runs (see `pt2.py`); any batch
size is accepted, whatever the size at the export was; dtype and device follow the latent.
"""

from __future__ import annotations

import copy
import operator
import os
from functools import reduce
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument

from .pt2 import read_pt2
from .pt2_operators import CHECKS, GRAD_MODE
from .stateless import Stateless, given_to, schema_of, stopped

_SIZE_METHODS = {
    torch.ops.aten.sym_size.int: "size",
    torch.ops.aten.sym_numel.default: "numel",
    torch.ops.aten.sym_stride.int: "stride",
}
_REMEDY = "Call gen.eval() before torch.export.export"


def load_exported(source: str | os.PathLike[str] | torch.export.ExportedProgram) -> ExportedGenerator:
    """The generator (B, *latent) → (B, C, H, W) of an exported program or of the `.pt2` file that holds one.

    A live program's tensors are copied, so that it stays as it was. Which files are supported is said in `pt2.py`. The
    program runs a few times on random latents here, to find whether it takes any batch size (the global random state is
    not touched).

    Raises ValueError, naming the file and the trouble, where the file is damaged, holds anything that could run code,
    or uses an operator that is not on the list; where the program takes more than one tensor or returns more than one;
    where it was exported in training mode; and where its result is no image batch. OSError where there is no file.
    """
    if isinstance(source, torch.export.ExportedProgram):
        label, stateless = "the exported program", _stateless(source)
    else:
        label, stateless = os.fspath(source), read_pt2(source)
    try:
        _refuse_training(stateless)
        _follow_latent(stateless)
        _ask_sizes(stateless.graph)
        _whole_batch_norm(stateless.graph)
        return ExportedGenerator(stateless).eval()
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from error


class ExportedGenerator(nn.Module):
    """A program with its state as parameters and buffers; forward takes z (B, *latent) and gives (B, C, H, W).

    `latent_shape` is *latent. A program with a fixed batch of b rows that does not compute the same for other sizes
    runs in groups of b; the last group is filled up with copies of its last row, whose results are dropped.
    """

    def __init__(self, stateless: Stateless) -> None:
        super().__init__()
        self.latent_shape = stateless.sizes[1:]
        self._inputs = stateless.inputs
        self._group: int | None = stateless.sizes[0]
        # The graph itself is stateless: its tensors come from this module at each call. So whatever replaces them
        # here (functional_call, vmap, .double()) is what the program sees.
        self._program = fx.GraphModule(nn.Module(), stateless.graph)
        _register(self, stateless)
        self._find_batching(stateless)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        rows, group = z.shape[0], self._group
        if group is None or rows == group:
            return self._run(z)
        surplus = -rows % group if rows else group
        if surplus:
            fill = z[-1:].expand(surplus, *z.shape[1:]) if rows else z.new_zeros(group, *z.shape[1:])
            z = torch.cat([z, fill])
        images = [self._run(part) for part in z.split(group)]
        return (images[0] if len(images) == 1 else torch.cat(images))[:rows]

    def _run(self, z: torch.Tensor) -> torch.Tensor:
        values = [z if name is None else reduce(getattr, name.split("."), self) for name in self._inputs]
        return self._program(*values)

    def _find_batching(self, stateless: Stateless) -> None:
        """Set `_group` to None where the program, or its form with a free batch, is right for any number of rows."""
        rows = stateless.sizes[0]
        devices = [tensor.device for tensor in stateless.state.values()]
        generator = torch.Generator().manual_seed(0)
        z = torch.randn((rows + 1, *self.latent_shape), generator=generator, dtype=torch.float64)
        z = z.to(devices[0] if devices else "cpu", stateless.dtype)
        with torch.no_grad():
            try:
                expected = self._run(z[:rows])
            except (RuntimeError, TypeError, NotImplementedError, IndexError, MemoryError) as error:
                if stateless.dtype in (torch.float32, torch.float64):
                    raise ValueError(f"the program does not run: {error}") from error
                return  # a half-precision operator that only the target device has
            if not isinstance(expected, torch.Tensor) or expected.ndim != 4 or expected.shape[0] != rows:
                shape = tuple(expected.shape) if isinstance(expected, torch.Tensor) else type(expected).__name__
                raise ValueError(f"maps a latent {tuple(z[:rows].shape)} to {shape}, expected (B, C, H, W)")
            fixed = self._program
            if not stateless.dynamic:
                self._program = fx.GraphModule(nn.Module(), _free_batch(stateless.graph, rows))
            try:
                right = _agree(self._run(z[:1]), expected[:1]) and _agree(self._run(z)[:rows], expected)
            except (RuntimeError, TypeError, IndexError):
                right = False
        if right:
            self._group = None
        else:
            self._program = fixed


def _agree(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal up to the rounding that another batch size may bring."""
    tolerance = 1e-4 if actual.dtype in (torch.float32, torch.float64) else 2e-2
    scale = float(expected.abs().nan_to_num(posinf=0.0).max())
    return actual.shape == expected.shape and torch.allclose(
        actual, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True
    )


def _register(module: nn.Module, stateless: Stateless) -> None:
    """Put the state into `module` under its dotted names. What was one tensor under two names stays one."""
    shared: dict[Any, torch.Tensor] = {}
    for name, tensor in stateless.state.items():
        is_parameter = isinstance(tensor, nn.Parameter)
        key: Any = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), is_parameter)
        tensor = shared.setdefault(key if tensor.numel() else name, tensor)
        *path, leaf = name.split(".")
        owner = module
        try:
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]  # type: ignore[assignment]
            if isinstance(tensor, nn.Parameter):
                owner.register_parameter(leaf, tensor)
            else:
                owner.register_buffer(leaf, tensor, persistent=name not in stateless.transient)
        except (KeyError, TypeError) as error:  # an empty name, or one that would hide a method
            raise ValueError(f"its tensor {name!r} cannot have that name in a module ({error})") from error


def _stateless(program: torch.export.ExportedProgram) -> Stateless:
    """A live program in the form of a saved one. Its operators are the caller's own, so any of them is allowed."""
    what, signature = "the exported program", program.graph_signature
    changed = [s.target for s in signature.output_specs if s.kind.name.endswith("MUTATION")]
    if changed:
        raise ValueError(f"{what} writes into {changed[0]!r}, as in training mode. {_REMEDY}")
    outputs = [spec for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    if len(outputs) != 1 or not isinstance(outputs[0].arg, TensorArgument):
        raise ValueError(f"{what} returns {len(outputs)} values, a generator returns one image tensor")

    state = {name: tensor.detach() for name, tensor in program.state_dict.items()}
    constants = {name: tensor for name, tensor in program.constants.items() if isinstance(tensor, torch.Tensor)}
    state |= {name: tensor.detach() for name, tensor in constants.items()}
    state = copy.deepcopy(state)  # of all at once, so that what shares memory goes on sharing it
    for name, tensor in program.state_dict.items():
        if isinstance(tensor, nn.Parameter):
            state[name] = nn.Parameter(state[name], requires_grad=tensor.requires_grad)

    graph = fx.Graph()
    values: dict[fx.Node, Any] = {}
    inputs: list[str | None] = []
    latents: list[fx.Node] = []
    transient = set(constants)
    for node, spec in zip(
        (n for n in program.graph.nodes if n.op == "placeholder"), signature.input_specs, strict=True
    ):
        if spec.kind is InputKind.USER_INPUT:
            if isinstance(spec.arg, ConstantArgument):  # burnt into the graph already
                continue
            if not isinstance(spec.arg, TensorArgument):
                raise ValueError(f"{what} has an input {spec.arg}; a generator takes one latent tensor")
            latents.append(node)
            inputs.append(None)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            inputs.append(spec.target)
            if spec.persistent is False:
                transient.add(spec.target)
        else:
            raise ValueError(f"{what} has an input of kind {spec.kind.name}, which is not supported")
        values[node] = graph.placeholder("z" if inputs[-1] is None else f"t{len(inputs)}")
    if len(latents) != 1:
        raise ValueError(f"{what} takes {len(latents)} tensors, a generator takes one latent (B, *latent)")
    _copy_nodes(program.graph_module, graph, values)
    (image,) = (node for node in values if node.name == outputs[0].arg.name)
    graph.output(values[image])

    meta = latents[0].meta["val"]
    sizes = tuple(size.node.hint if isinstance(size, torch.SymInt) else size for size in meta.shape)
    if meta.ndim == 0 or None in sizes:
        raise ValueError(f"{what} takes a tensor of sizes {tuple(meta.shape)}, expected a latent (B, *latent)")
    return Stateless(
        graph=graph,
        inputs=inputs,
        sizes=sizes,
        dynamic=isinstance(meta.shape[0], torch.SymInt),
        dtype=meta.dtype,
        device=meta.device,
        state=state,
        transient=transient,
    )


def _copy_nodes(body: fx.GraphModule, graph: fx.Graph, values: dict[fx.Node, Any]) -> None:
    """Copy what `body` computes into `graph`; `values` holds its placeholders' stand-ins, and takes those of the rest.

    A block under torch.no_grad, which is a call of a graph of its own, is put in line.
    """
    for node in body.graph.nodes:
        if node.op in ("placeholder", "output") or (node.op == "get_attr" and all(map(_is_block, node.users))):
            continue
        if _is_block(node):
            enabled, called, *given = node.args
            inner = getattr(body, called.target)
            inside = dict(zip(inner.graph.find_nodes(op="placeholder"), map(values.__getitem__, given), strict=True))
            _copy_nodes(inner, graph, inside)
            (output,) = inner.graph.find_nodes(op="output")
            made = [inside[value] for value in output.args[0]]
            values[node] = made if enabled else [stopped(graph, value) for value in made]
        elif node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
            raise ValueError(f"node {node.name}: {node.op} {node.target} is not supported")
        elif node.target is operator.getitem and isinstance(values[node.args[0]], list):
            values[node] = values[node.args[0]][node.args[1]]
        elif not (schema_of(node) and node.target._schema.name.removeprefix("aten::") in CHECKS):
            values[node] = graph.node_copy(node, values.__getitem__)


def _is_block(node: fx.Node) -> bool:
    return f"torch.ops.{getattr(node.target, 'namespace', '')}.{getattr(node.target, '__name__', '')}" == GRAD_MODE


# ---- rewriting


def _refuse_training(stateless: Stateless) -> None:
    """ValueError for what a generator in eval mode does not do: random dropout, running statistics, writes to state."""
    owner: dict[fx.Node, str] = {}  # a node that shares memory with the state or with z → whose memory
    for node, name in zip(stateless.graph.find_nodes(op="placeholder"), stateless.inputs, strict=True):
        owner[node] = "its input" if name is None else repr(name)
    for node in stateless.graph.nodes:
        schema = schema_of(node)
        if node.target is operator.getitem and node.args[0] in owner:
            owner[node] = owner[node.args[0]]
        if schema is None:
            continue
        given = {argument.name: value for argument, value in given_to(node)}
        if any(given.get(flag) is True for flag in ("train", "training", "use_input_stats")):
            running = given.get("running_mean") is not None
            if running or "dropout" in schema.name or "rrelu" in schema.name:
                raise ValueError(f"node {node.name}: {node.target} is in training mode. {_REMEDY}")
        shares = any(value.alias_info for value in schema.returns) or "dropout" in schema.name
        for argument, value in given_to(node):
            if value not in owner or not isinstance(value, fx.Node):
                continue
            if argument.alias_info and argument.alias_info.is_write and "detach" not in schema.name:
                raise ValueError(f"node {node.name}: {node.target} writes into {owner[value]}. {_REMEDY}")
            if shares and (argument.alias_info or "dropout" in schema.name):
                owner[node] = owner[value]


def _follow_latent(stateless: Stateless) -> None:
    """Replace the dtype and device of the export, where the graph names them, by those of z at the call.

    Export writes them into every `zeros` and `to`; left there, `.double()` and `.to(device)` would break the program.
    """
    graph = stateless.graph
    (z,) = (node for node in graph.find_nodes(op="placeholder") if node.name == "z")
    made: dict[str, fx.Node] = {}

    def follow(value: Any) -> Any:
        name = {torch.dtype: "dtype", torch.device: "device"}.get(type(value))
        if name is None or value != getattr(stateless, name):
            return value
        if name not in made:
            made[name] = _first(graph, "call_function", getattr, (z, name))
        return made[name]

    for node in list(graph.nodes):
        if schema_of(node):
            node.args, node.kwargs = tuple(map(follow, node.args)), {k: follow(v) for k, v in node.kwargs.items()}


def _ask_sizes(graph: fx.Graph) -> None:
    """Replace the operators that ask for a size by the tensors' own methods: vmap has no rule for the former."""
    for overload, method in _SIZE_METHODS.items():
        for node in graph.find_nodes(op="call_function", target=overload):
            with graph.inserting_after(node):
                node.replace_all_uses_with(graph.call_method(method, node.args))
            graph.erase_node(node)


def _whole_batch_norm(graph: fx.Graph) -> None:
    """Replace batch norm's decomposed form by the operator of before: vmap has no rule for the former."""
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit_no_training.default):
        if not all(user.target is operator.getitem and user.args[1] == 0 for user in node.users if user.users):
            continue  # something reads the saved statistics too
        given = {argument.name: value for argument, value in given_to(node)}
        stored = [given[name] for name in ("input", "weight", "bias", "running_mean", "running_var")]
        with graph.inserting_after(node):
            args = (*stored, False, given["momentum"], given["eps"], False)
            whole = graph.call_function(aten.batch_norm.default, args)
        for user in list(node.users):
            if user.users:
                user.replace_all_uses_with(whole)
            graph.erase_node(user)
        graph.erase_node(node)


def _free_batch(fixed: fx.Graph, rows: int) -> fx.Graph:
    """A copy of `fixed` whose reshapes, expansions and fills take their first size from z where it was `rows`.

    Only a guess at what the author would have exported with a free batch: the caller compares the two.
    """
    graph = fx.Graph()
    image = graph.graph_copy(fixed, {})
    (z,) = (node for node in graph.find_nodes(op="placeholder") if node.name == "z")
    batch = _first(graph, "call_method", "size", (z, 0))
    of_latent = {z}
    for node in graph.nodes:
        schema = schema_of(node)
        if schema is None or node is batch:
            if node.target is operator.getitem and node.args[0] in of_latent:
                of_latent.add(node)
            continue
        if of_latent.intersection(node.all_input_nodes):
            of_latent.add(node)
        # The first size of a reshaped constant is no batch: a 1 is there to broadcast.
        if node not in of_latent and ("view" in schema.name or "reshape" in schema.name):
            continue

        def free(argument: Any, value: Any) -> Any:
            if argument.name in ("size", "shape", "repeats") and isinstance(value, (list, tuple)):
                return [batch, *value[1:]] if value and value[0] == rows else value
            return batch if argument.name == "N" and value == rows else value  # native_group_norm

        node.args = tuple(free(*pair) for pair in zip(schema.arguments, node.args, strict=False))
        node.kwargs = {argument.name: free(argument, node.kwargs[argument.name])
                       for argument in schema.arguments if argument.name in node.kwargs}  # fmt: skip
    graph.output(image)
    return graph


def _first(graph: fx.Graph, kind: str, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """A new node of that kind before all that compute."""
    with graph.inserting_after(graph.find_nodes(op="placeholder")[-1]):
        return graph.create_node(kind, target, args)
