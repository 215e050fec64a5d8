"""ATen graph → Program: one small function for each op that the fast engines know, by kind in the files here."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import fx, nn
from torch._decomp import decomposition_table
from torch.overrides import TorchFunctionMode

from ..blocks import mutates, put_in_line
from ..look import first_line
from ..program import Program, Unlowered
from ..walk import Lowering
from ..working_copy import copied, home_of
from . import arrange, convolutions, elementwise, norms, products, resampling  # noqa: F401 (each registers its rules)
from .table import RULES

__all__ = ["RULES", "lower"]


def lower(module: nn.Module, latent_shape: tuple[int, ...]) -> Program:
    """The Program of `module`, which is in eval mode and maps (B, *latent_shape) to (B, C, H, W).

    What it does to one latent (B = 1) is what the program does to each. Parameters and buffers are referred to, not
    copied, where they are contiguous. An op that has no rule is taken apart into others by PyTorch's own decomposition,
    where there is one. Raises Unlowered naming the layer and the op that has no rule.
    """
    device, dtype = home_of(module)
    latent = torch.zeros((1, *latent_shape), dtype=dtype, device=device)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")  # PyTorch's use of its own
            warnings.filterwarnings("ignore", ".* assigned during export")  # a hook's weight, computed at each call
            # A copy: what a forward assigns during a capture (by self.to or .float, say) are no real tensors.
            with _DataDetached():
                exported = torch.export.export(copied(module, share=True), (latent,), strict=False)
            put_in_line(exported)
            apart = _decompositions(exported)
            if apart or any(mutates(node) for node in exported.graph.nodes):
                exported = exported.run_decompositions(apart)  # functional form: no op writes to its input
    except (MemoryError, torch.OutOfMemoryError, Unlowered):
        raise
    except Exception as error:  # a capture runs the module's code and much of PyTorch's: it may raise anything
        raise Unlowered(f"torch.export cannot capture {type(module).__name__}: {first_line(error)}") from error
    return Lowering(module, exported, device, dtype, RULES).program()


class _DataDetached(TorchFunctionMode):
    """x.data is x.detach(), which a capture can follow: some modules ask it for a shape."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0].detach() if func == _DATA else func(*args, **(kwargs or {}))


_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]


def _decompositions(exported: torch.export.ExportedProgram) -> dict[Any, Any]:
    """PyTorch's decompositions of the ops in a program that have no rule, and depend on latent or parameters."""
    signature = exported.graph_signature
    depend: set[fx.Node] = set()
    unknown: set[Any] = set()
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            given = node.name in signature.user_inputs or node.name in signature.inputs_to_parameters
        else:
            given = any(one in depend for one in node.all_input_nodes)
        if given:
            depend.add(node)
        if given and isinstance(node.target, torch._ops.OpOverload) and str(node.target) not in RULES:
            unknown.add(node.target)
    unknown = {target for target in unknown if not target._schema.is_mutable}
    known: dict[Any, Any] = {**torch.export.default_decompositions(), **decomposition_table} if unknown else {}
    return {target: known[target] for target in unknown if target in known}
