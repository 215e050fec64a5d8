"""The walk from an ATen graph to a Program, and what a rule for an op needs on the way."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import OutputKind

from .layers import check_layer
from .program import Layer, Program, Unlowered, Value

Rule = Callable[..., Any]
Shape = tuple[int, ...]


class Lowering:
    """The state of one lowering: values and layers so far, and the node in hand.

    `rules` are by the op's name. A rule gets this state and the arguments in the schema's order, and gives the id of
    the value that it made (a list of ids, where the op gives a list). Each value has its shape in the graph beside that
    in the program, `wholes`: of a value with a row for each sample the two differ by a first dimension of 1, if it has
    one. The graph is of one latent (1, *latent), and what it does to that is what the program does to each: so a
    module may put its batch dimension anywhere.
    """

    def __init__(
        self,
        module: nn.Module,
        exported: torch.export.ExportedProgram,
        device: torch.device,
        dtype: torch.dtype,
        rules: Mapping[str, Rule],
    ) -> None:
        self.values: list[Value] = []
        self.wholes: list[Shape] = []
        self.layers: list[Layer] = []
        self.parameters: list[torch.Tensor] = []
        self.names: list[str] = []
        self.constants: list[torch.Tensor] = []  # each in its own dtype, to compute others from
        self.made_by: dict[int, Layer] = {}
        self.ids: dict[fx.Node, int] = {}
        self.lists: dict[fx.Node, list[int]] = {}
        self.module, self.exported, self.rules = module, exported, rules
        self.latent, self.device, self.dtype = -1, device, dtype  # of the program's numbers
        self.node: fx.Node = next(iter(exported.graph.nodes))

    def program(self) -> Program:
        """The whole graph, lowered; raises Unlowered."""
        output = -1
        for node in self.exported.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                continue  # added where it is used, so that what is never used is not learned
            if node.op == "output":
                output = self._output()
            elif isinstance(node.meta.get("val"), (torch.Tensor, tuple, list)):
                made = self._lower_node()
                if isinstance(made, list):
                    self.lists[node] = made
                else:
                    self.ids[node] = made
        return self._pruned(output)

    # -- what rules use ------------------------------------------------------------------------------------------

    def refuse(self, why: str) -> Unlowered:
        return Unlowered(f"layer {self.layer_name()!r}: {why}")

    def layer_name(self) -> str:
        """Path of the module in hand, such as ``main.3 (ConvTranspose2d)``."""
        stack = list((self.node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        kind = kind if isinstance(kind, str) else kind.__name__
        return f"{path or 'forward'} ({kind.rsplit('.', 1)[-1] or self.node.name})"

    def arguments(self) -> list[Any]:
        """The node's arguments in the schema's order, defaults filled in."""
        if self.node.target is operator.getitem:
            return list(self.node.args)
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        given = list(self.node.args)
        for argument in schema[len(given) :]:
            given.append(self.node.kwargs.get(argument.name, argument.default_value))
        return given

    def value(self, node: Any) -> int:
        """The id of a tensor argument."""
        if not isinstance(node, fx.Node):
            raise self.refuse(f"{self.node.target} has {node!r} where a tensor is expected")
        if node not in self.ids:
            self.ids[node] = self._placeholder(node)
        return self.ids[node]

    def optional(self, node: Any) -> int | None:
        return None if node is None else self.value(node)

    def number(self, argument: Any) -> float:
        """A literal number."""
        if isinstance(argument, fx.Node):
            argument = argument.meta.get("val")
        if isinstance(argument, (bool, int, float)):
            return float(argument)
        raise self.refuse(f"{self.node.target} by {argument!r}, which is not a number")

    def emit(self, op: str, inputs: tuple[int | None, ...], shape: Shape | None = None, **attrs: Any) -> int:
        """Add a layer of layers.LAYERS.

        Its output has the node's shape in the graph, or `shape`. It has a row for each sample if one of its inputs has,
        or if the layer is "expand".
        """
        check_layer(op, inputs, attrs)
        batched = op == "expand" or any(self.values[i].batched for i in inputs if i is not None)
        whole = self.shape() if shape is None else shape
        output = self.add(Value("activation" if batched else "weight", self.sample(whole) if batched else whole), whole)
        layer = Layer(op, inputs, output, attrs, self.layer_name())
        self.layers.append(layer)
        self.made_by[output] = layer
        return output

    def shape(self) -> Shape:
        """Of the node in hand, in the graph."""
        return tuple(int(size) for size in self.node.meta["val"].shape)

    @staticmethod
    def sample(whole: Shape) -> Shape:
        """Shape of one sample of a tensor in the graph: without its first dimension, where that is the batch's."""
        return whole[1:] if whole[:1] == (1,) else whole

    def add(self, value: Value, whole: Shape | None = None) -> int:
        self.values.append(value)
        self.wholes.append(value.shape if whole is None else whole)
        return len(self.values) - 1

    def constant(self, tensor: torch.Tensor) -> int:
        """A value of these numbers."""
        self.constants.append(tensor.detach())
        return self.add(Value("constant", tuple(tensor.shape), len(self.constants) - 1))

    def numbers(self, node: Any) -> torch.Tensor:
        """The numbers of a tensor argument that depends on neither latent nor parameters; refused if it does."""
        value = self.values[self.value(node)]
        if value.kind != "constant":
            raise self.refuse(f"{self.node.target} by a tensor that is not constant")
        return self.constants[value.index]

    def unbatched(self, value: int | None) -> int | None:
        """`value`, refused if it has a row for each sample."""
        if value is not None and self.values[value].batched:
            raise self.refuse(f"a weight of {self.node.target} depends on the latent")
        return value

    # -- the graph's ends ----------------------------------------------------------------------------------------

    def _lower_node(self) -> int | list[int]:
        try:
            known = self._known()
            made = self._by_rule() if known is None else known
        except (Unlowered, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a call that nobody thought of: other engines run it
            raise self.refuse(f"{self.node.target} is not understood ({type(error).__name__}: {error})") from error
        if isinstance(made, int) and self.wholes[made] != self.shape():
            raise self.refuse(f"{self.node.target} is not understood: {self.wholes[made]} is not {self.shape()}")
        return made

    def _by_rule(self) -> int | list[int]:
        rule = self.rules.get(str(self.node.target))
        if rule is None:
            asked = self.node.meta.get("original_aten", self.node.target)  # of which PyTorch's decomposition made this
            raise self.refuse(f"op {asked} is not known to the fast engines")
        result = self.node.meta["val"]
        dtype = (result if isinstance(result, torch.Tensor) else result[0]).dtype
        if not dtype.is_floating_point:
            raise self.refuse(f"{self.node.target} gives {dtype}; only floating point is known to the fast engines")
        made: int | list[int] = rule(self, *self.arguments())
        return made

    def _known(self) -> int | list[int] | None:
        """What the node gives, computed now, where it depends on neither latent nor parameters."""
        if not isinstance(self.node.target, torch._ops.OpOverload):
            return None
        if torch.Tag.nondeterministic_seeded in self.node.target.tags or self.node.target._schema.is_mutable:
            return None
        inputs = self.node.all_input_nodes
        if any(node in self.lists or self.values[self.value(node)].kind != "constant" for node in inputs):
            return None
        args, kwargs = fx.map_arg((self.node.args, dict(self.node.kwargs)), self.numbers)
        made = self.node.target(*args, **kwargs)
        if isinstance(made, torch.Tensor):
            return self.constant(made.clone())
        if isinstance(made, (list, tuple)) and all(isinstance(one, torch.Tensor) for one in made):
            return [self.constant(one.clone()) for one in made]
        return None

    def _placeholder(self, node: fx.Node) -> int:
        signature, name = self.exported.graph_signature, node.name
        if name in signature.user_inputs:
            whole = tuple(int(size) for size in node.meta["val"].shape)
            self.latent = self.add(Value("latent", whole[1:]), whole)
            return self.latent
        if name in signature.inputs_to_parameters:
            path = signature.inputs_to_parameters[name]
            return self._parameter(path, self.module.get_parameter(path))
        if name in signature.inputs_to_buffers:
            path = signature.inputs_to_buffers[name]
            return self.constant(self.module.get_buffer(path))
        path = signature.inputs_to_lifted_tensor_constants.get(name, "")
        constant = self.exported.constants.get(path)
        if not isinstance(constant, torch.Tensor):
            raise self.refuse(f"the input {name} is not a tensor")
        path = self._held(constant)
        return self._parameter(path, self.module.get_parameter(path)) if path else self.constant(constant)

    def _held(self, constant: torch.Tensor) -> str:
        """The name of the parameter that a module holds in a list, say, besides, and a capture takes for a constant."""
        for path, parameter in self.module.named_parameters():
            alike = constant.shape == parameter.shape and constant.stride() == parameter.stride()
            if alike and constant.numel() and constant.data_ptr() == parameter.data_ptr():
                return path
        return ""

    def _parameter(self, path: str, parameter: torch.Tensor) -> int:
        for i, value in enumerate(self.values):
            if value.kind == "parameter" and self.parameters[value.index] is parameter:
                return i  # tied: one parameter under several names
        self.parameters.append(parameter)
        self.names.append(path)
        return self.add(Value("parameter", tuple(parameter.shape), len(self.parameters) - 1))

    def _output(self) -> int:
        output = self.value(self._returned())
        if output == self.latent:  # a layer is what makes an image
            output = self.emit("reshape", (output,), self.wholes[output])
        if not self.values[output].batched:
            raise Unlowered("the generator's output does not depend on the latent")
        if len(self.wholes[output]) != 4 or len(self.values[output].shape) != 3:
            raise Unlowered(f"the generator returns {('B', *self.values[output].shape)}, not (B, C, H, W)")
        return output

    def _returned(self) -> fx.Node:
        """The node of the image.

        In functional form a graph also returns what a first layer made of its input in place, which nobody reads.
        """
        results, specs = self.node.args[0], self.exported.graph_signature.output_specs
        assert isinstance(results, (tuple, list))
        kept = [spec.target for spec in specs if spec.kind is OutputKind.BUFFER_MUTATION]
        if kept:
            raise Unlowered(f"the generator writes into its own {kept[0]!r}")
        images = [node for node, spec in zip(results, specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
        if len(images) != 1 or not isinstance(images[0], fx.Node):
            raise Unlowered("the generator returns more than one tensor")
        return images[0]

    def _pruned(self, output: int) -> Program:
        """The layers that the output depends on, and the values that those use, renumbered.

        A parameter that no gradient reaches never moves: it is a constant.
        """
        needed, learned, kept = {output}, {output}, []
        for layer in reversed(self.layers):
            inputs = {i for i in layer.inputs if i is not None}
            if layer.output in needed:
                kept.append(layer)
                needed |= inputs
            if layer.output in learned and layer.op != "stop":
                learned |= inputs
        order = sorted(needed)
        renumbered = {old: new for new, old in enumerate(order)}
        values, parameters, names, constants = [], [], [], []
        for old in order:
            value = self.values[old]
            if value.kind == "parameter" and old not in learned:
                constants.append(self.parameters[value.index].detach().contiguous())
                value = Value("constant", value.shape, len(constants) - 1)
            elif value.kind == "parameter":
                names.append(self.names[value.index])
                parameters.append(self.parameters[value.index].detach().contiguous())
                value = Value("parameter", value.shape, len(parameters) - 1)
            elif value.kind == "constant":
                # Booleans and whole numbers as others. A 0-dim tensor of another dtype does not promote in PyTorch, nor
                # shall it here.
                constants.append(self.constants[value.index].to(self.device, self.dtype))
                value = Value("constant", value.shape, len(constants) - 1)
            values.append(value)
        layers = tuple(
            Layer(
                layer.op,
                tuple(None if i is None else renumbered[i] for i in layer.inputs),
                renumbered[layer.output],
                layer.attrs,
                layer.name,
            )
            for layer in reversed(kept)
        )
        if self.latent not in renumbered:
            raise Unlowered("the generator's output does not depend on the latent")
        if self.latent not in learned:
            raise Unlowered("no gradient reaches the generator's latent")
        return Program(
            tuple(values), layers, tuple(parameters), tuple(names), tuple(constants),
            renumbered[self.latent], renumbered[output],
        )  # fmt: skip
