"""The fields of settings classes as options of a command: `n_seed` is ``--n-seed``, with the help of its docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
import typer

from . import given
from .given import Mistake

Command = TypeVar("Command", bound=Callable[..., None])

HELP = {
    "loss": "l2 (Sect. 4.2), l1, laplacian (Sect. 5), or module:callable, which imports and runs your code: "
    "(reconstruction, image), both (B, C, H, W), to (B,).",
    "starts": "shared: n_seed starts drawn once for all images; independent: drawn anew for each image, by its number "
    "in the manifest, whatever the shard; or a .npy file of starts, (S, *latent) or (N, S, *latent).",
    "latent_shape": "As 256 or 64,4,4, where the generator's layers leave none or several.",
    "betas": "Adam's decay rates, as 0.5,0.999.",
    "bandwidths": "of gmmn: of each kernel, in units of the root of the median squared distance between two images, "
    "as 0.5,1,2.",
    "lr": "learning rate of every network: Adam's, or of wgan RMSprop's.",
    "device": "torch device, as cuda:0; without it the CPU, or where a generator of yours is.",
    "engine": "auto, or the name of an engine: adgan-fast info lists them.",
    "progress": "Show how far it is, on stderr; without it: unless --quiet.",
    "strict": "Fail where an image holds NaN or Inf, instead of scoring it NaN.",
}
"""Of options that are written otherwise than fields."""


def takes(classes: Mapping[str, type], but: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Gives a command with ``**settings`` an option for each field of the classes, whose names are for the help alone.

    An option that is not given is None: see `chosen`.
    """

    def decorated(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        shown = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {each.name for each in shown}
        names = dict.fromkeys(field.name for kind in classes.values() for field in dataclasses.fields(kind))
        more = [_parameter(name, classes) for name in names if name not in taken and name not in but]
        command.__signature__ = own.replace(parameters=[*shown, *more])  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in [*shown, *more]} | {"return": None}
        return command

    return decorated


def chosen(kind: type, settings: Mapping[str, Any], called: str = "") -> dict[str, Any]:
    """The settings that were given, as values for the fields of `kind`; Mistake naming an option that is none of it.

    Args:
        kind: a settings class.
        settings: by the fields' names; None is for an option that was not given.
        called: what the class is for, in the message.
    """
    fields = typing.get_type_hints(kind)
    values = {name: value for name, value in settings.items() if value is not None}
    if foreign := [name for name in values if name not in fields]:
        known = ", ".join(map(_option, sorted({field.name for field in dataclasses.fields(kind)} & settings.keys())))
        raise Mistake(f"{', '.join(map(_option, foreign))} is no setting of {called}; its settings are {known}")
    return {name: _value(name, value) for name, value in values.items()}


def _parameter(name: str, classes: Mapping[str, type]) -> inspect.Parameter:
    owners = {label: kind for label, kind in classes.items() if name in typing.get_type_hints(kind)}
    kind = _type_of(typing.get_type_hints(next(iter(owners.values())))[name])
    help_text = HELP.get(name) or next(filter(None, (_documented(each, name) for each in owners.values())), "")
    if len(owners) < len(classes) and name not in HELP:
        help_text = f"of {', '.join(owners)}: {help_text}"
    defaults = "" if name == "progress" else _defaults(name, owners)
    annotation = Annotated[kind | None, typer.Option(help=f"{help_text} {defaults}".strip())]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _type_of(hint: Any) -> type:
    """What an option takes: a number, a flag, or text."""
    kinds = [each for each in (typing.get_args(hint) or (hint,)) if each is not type(None)]
    if typing.get_origin(hint) not in (Literal, tuple) and len(kinds) == 1 and kinds[0] in (int, float, bool):
        return typing.cast(type, kinds[0])
    return str


def _documented(kind: type, name: str) -> str:
    """What a class's docstring, or that of one it is derived from, says of an attribute, as plain text."""
    for owner in kind.__mro__:
        text = inspect.cleandoc(owner.__doc__ or "")
        found = re.search(rf"^    {name}: (.*(?:\n {{8}}.*)*)", text, re.MULTILINE)
        if found:
            text = " ".join(found[1].split()).replace("``", "").replace('"', "").replace("`", "")
            return text.replace("when None", "without it")
    return ""


def _defaults(name: str, owners: Mapping[str, type]) -> str:
    """Of each class, but said once where they agree."""
    said: dict[str, list[str]] = {}
    for label, kind in owners.items():
        default = next(field.default for field in dataclasses.fields(kind) if field.name == name)
        said.setdefault(_text(default), []).append(label)
    if len(said) == 1:
        (default,) = said
        return f"[default: {default}]" if default else ""
    usual, *others = ((default or "none", ", ".join(who)) for default, who in said.items())
    return f"[default: {'; '.join([usual[0], *(f'of {who} {default}' for default, who in others)])}]"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _value(name: str, value: Any) -> Any:
    if name in ("betas", "bandwidths"):
        return numbers(_option(name), value)
    if name == "latent_shape":
        return given.shape(value)
    if name == "loss" and ":" in value:
        return given.called(value, "--loss")
    if name == "starts" and value.lower().endswith(".npy"):
        return _starts(Path(value))
    return value


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers as "0.5,0.999"."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise Mistake(f"{option} must be numbers with commas between them, got {text!r}") from error


def _starts(path: Path) -> torch.Tensor:
    try:
        found = np.load(path, allow_pickle=False)
        return torch.from_numpy(found)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise Mistake(f"--starts: {path}: not a .npy file of numbers ({error})") from error
