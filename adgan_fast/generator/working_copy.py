"""A generator's working copy: the caller's own module is never run or changed."""

from __future__ import annotations

import copy
import logging
import os
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .exported import load_exported

log = logging.getLogger("adgan_fast")

UNCOPIED = (TypeError, RuntimeError, NotImplementedError, AttributeError)
"""What copy.deepcopy raises over what it cannot copy."""

Generator = nn.Module | torch.export.ExportedProgram | str | os.PathLike[str]


def working_copy(
    gen: Generator, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """The run's own generator: in eval mode, on `device` (its own when None), its numbers in `dtype`.

    Without a dtype: in float32, or in float64 if it was. Complex buffers stay complex, of the same precision.

    Raises TypeError for what is no generator, and ValueError naming what cannot be copied, has no values, or would be
    lost in the copy.
    """
    module = _module(gen)
    home, own = home_of(module)
    device, dtype = torch.device(device) if device is not None else home, dtype or own

    def converted(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            return tensor.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)
        return _in_plain_strides(tensor.to(device, dtype if tensor.is_floating_point() else None))

    for layer in module.modules():
        if getattr(layer, "sparse", False) is True:  # an embedding: its gradient in full is the same, and Adam takes it
            layer.sparse = False  # type: ignore[assignment]
    owners = [module, *_beside(module)]
    try:
        for owner in owners:
            for layer in owner.modules():
                vars(layer).pop("_apply", None)
            owner._apply(converted).eval()  # as .to() does it, which would make real numbers of complex ones
            for layer in owner.modules():
                object.__setattr__(layer, "_apply", _Stay(layer))
        return module
    except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch without CUDA is asked for it
        raise ValueError(f"device {str(device)!r} cannot be used: {error}") from error


def portable(module: nn.Module) -> nn.Module:
    """A working copy as it can be pickled and loaded anywhere: on the CPU (there in the same memory), free to be moved.

    `working_copy` of it is a working copy again.
    """
    made = copied(module, share=True)
    for owner in (made, *_beside(made)):
        for layer in owner.modules():
            vars(layer).pop("_apply", None)
        owner.cpu()
    return made


class _Stay:
    """In the place of nn.Module._apply, for a forward that calls self.to(device) or .float(): it is there already.

    Carried out, it would put into the module what a capture or torch.func has in the place of its weights. The module
    is not kept alive by it, as a bound method would: what a run has copied is freed at once where it ends.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = weakref.ref(layer)

    def __call__(self, function: object, recurse: bool = True) -> nn.Module | None:
        return self._layer()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Stay:
        layer = self._layer()
        assert layer is not None
        return _Stay(memo.get(id(layer), layer))


def _beside(module: nn.Module) -> list[nn.Module]:
    """Modules that a module keeps in plain lists and the like: not part of it to PyTorch, but part of its forward."""
    own = set(module.modules())
    return [held for held in _held(module) if isinstance(held, nn.Module) and held not in own]


def _in_plain_strides(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor in the strides that its shape has by default.

    Along sizes of one others are contiguous too, and oneDNN takes some of these (a convolution's weight of one channel
    in channels_last) for another layout, and returns garbage.
    """
    if not tensor.is_contiguous() or tensor.stride() == torch.empty(tensor.shape, device="meta").stride():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def mixed_dtypes(gen: object) -> str:
    """The floating-point dtypes of a generator's parameters in words, where they are several; else ""."""
    dtypes = {w.dtype for w in gen.parameters() if w.is_floating_point()} if isinstance(gen, nn.Module) else set()
    return " and ".join(sorted(map(str, dtypes))) if len(dtypes) > 1 else ""


def home_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a generator computes, and in what: float64 if its first parameter is (or buffer, if it has none).

    One without a number of its own is at home on the CPU, in float32.
    """
    numbers = (tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point())
    like = next(numbers, torch.empty(0, dtype=torch.float32, device="cpu"))
    return like.device, torch.float64 if like.dtype == torch.float64 else torch.float32


def copied(module: nn.Module, share: bool = False) -> nn.Module:
    """A deep copy, in which tensors that a module has computed and kept (a hook's weight, say) are detached.

    `copy.deepcopy` refuses such tensors. `share`: parameters and buffers are others, in the same memory: for a copy
    that is read alone. Raises ValueError naming an attribute that cannot be copied.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in _computed(module)}
    if share:
        memo |= {id(w): nn.Parameter(w.detach(), requires_grad=w.requires_grad) for w in module.parameters()}
        memo |= {id(buffer): buffer.detach() for buffer in module.buffers()}
    try:
        made = copy.deepcopy(module, memo)
    except UNCOPIED as error:
        raise ValueError(
            f"generator {type(module).__name__} cannot be copied: {_culprit(module) or error}. Every search works on "
            "copies: remove it while you score, or give its class a __deepcopy__"
        ) from error
    own = {id(held) for held in (*module.modules(), *module.parameters())}
    if any(id(held) in own for held in (*made.modules(), *made.parameters())):
        raise ValueError(
            f"generator {type(module).__name__} cannot be copied: a __deepcopy__ in it gives back the original, or "
            "shares its weights. Every search works on copies: take it out while you score"
        )
    return made


def _module(gen: Generator) -> nn.Module:
    """A copy of the caller's module, with values that a search can use."""
    if isinstance(gen, torch.jit.ScriptModule):
        raise TypeError("gen is TorchScript; pass the module it was made from, or the path of a saved .pt2")
    exported = isinstance(gen, (str, os.PathLike, torch.export.ExportedProgram))
    module = load_exported(gen) if exported else gen  # type: ignore[arg-type]
    if not isinstance(module, nn.Module):
        got = f"the class {gen.__name__}; pass an instance" if isinstance(gen, type) else type(gen).__name__
        raise TypeError(f"gen must be a torch.nn.Module, an ExportedProgram or the path of a .pt2, got {got}")
    _refuse_valueless(module)
    return module if exported else copied(module)


def _refuse_valueless(module: nn.Module) -> None:
    """ValueError naming a parameter or buffer that has no values, or that no engine could learn."""
    name = type(module).__name__
    for path, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise TypeError(
                f"generator {name}: {path!r} is TorchScript, whose weights cannot be made private; use the module that "
                "it was made from"
            )
    for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for path, tensor in tensors:
            if is_lazy(tensor):
                raise ValueError(
                    f"generator {name}: {kind} {path!r} is uninitialised (a lazy module that has never run); call the "
                    "generator once on a latent, and load or train its weights, before it is used"
                )
            if tensor.device.type == "meta":
                raise ValueError(f"generator {name}: {kind} {path!r} is on the meta device: it has no values")
            if tensor._backward_hooks:
                log.warning("generator %s: hooks on %r are left out, since they are not copied with it", name, path)
            if kind == "parameter" and tensor.is_complex():
                raise ValueError(
                    f"generator {name}: parameter {path!r} is complex ({tensor.dtype}), which no engine learns; keep "
                    "it as a real parameter (torch.view_as_real) and use torch.view_as_complex in forward"
                )


def _computed(module: nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor kept in a module's attributes, or in containers there, that autograd made of others."""
    return (held for held in _held(module) if isinstance(held, torch.Tensor) and not held.is_leaf)


def _held(module: nn.Module) -> Iterator[Any]:
    """Whatever the attributes of the modules in a module hold, and containers there."""
    seen: set[int] = set()
    waiting: list[Any] = [vars(owner) for owner in module.modules()]
    while waiting:
        held = waiting.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        if isinstance(held, dict):
            waiting.extend(held.values())
        elif isinstance(held, (list, tuple, set)):
            waiting.extend(held)
        else:
            yield held


def _culprit(module: nn.Module) -> str:
    """The first attribute that cannot be copied by itself, or ""."""
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if name.startswith("_") and name in vars(nn.Module()):
                continue  # where nn.Module keeps parameters, buffers, submodules, hooks
            try:
                copy.deepcopy(value, {id(tensor): tensor for tensor in _computed(owner)})
            except UNCOPIED as error:
                return f"attribute {f'{path}.{name}'.lstrip('.')!r}, a {type(value).__name__} ({error})"
    return ""
