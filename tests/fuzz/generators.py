"""Random generators to fuzz with: linear layers, convolutions, arithmetic; the lines that they are made of."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable

from tests.fuzz.source import MOST_NUMBERS, Drawn, Shape, Source, Unsuited
from tests.fuzz.tensors import TENSORS


def activation(at: Source) -> None:
    x, in_place = at.reduced(), at.chance(0.15)
    slope = at.pick(0.0, 0.01, 0.2, 1.0, 1.7, -0.3, -1.0)
    elu = at.pick("1.0", "0.7", "0.0", "2.5") if in_place else at.pick("1.0", "0.7", "0.0", "2.5", "-0.6")
    softplus = f"{at.pick(1.0, 0.3, 4.0, 15.0, -1.5)}, {at.pick(20.0, 1.0, 0.0, -2.0)}"
    kinds = {
        "relu": f"F.relu({x}, inplace={in_place})",
        "leaky": f"F.leaky_relu({x}, {slope}, inplace={in_place})",
        "elu": f"F.elu({x}, {elu}, inplace={in_place})",
        "selu": f"F.selu({x})",
        "celu": f"F.celu({x}, {at.pick(0.5, 1.5)})",
        "softplus": f"F.softplus({x}, {softplus})",
        "silu": f"F.silu({x}, inplace={in_place})",
        "sin": f"{x}.sin_()" if in_place else f"torch.sin({x})",
        "gelu": f"F.gelu({x})",
        "gelu by tanh": f"F.gelu({x}, approximate='tanh')",
        "tanh": f"{x}.tanh_()" if in_place else f"torch.tanh({x})",
        "sigmoid": f"{x}.sigmoid_()" if in_place else f"torch.sigmoid({x})",
    }
    weights = {"selu": 0.3, "celu": 0.3, "gelu": 0.4, "gelu by tanh": 0.6}
    kind = at.random.choices(list(kinds), [weights.get(kind, 1.0) for kind in kinds])[0]
    at.line(kinds[kind])


def number(at: Source) -> None:
    """By numbers, in every way of writing it."""
    x, a, b = at.reduced(), at.pick(0.5, -1.5, 2, -1, 3.0, 0.01, 1e-5), at.pick(0, 0.3, -2)
    at.line(
        at.pick(
            f"{x} * {a}", f"{a} * {x}", f"{x} / {a}", f"{x} + {b}", f"{b} - {x}", f"-{x}", f"{x} * 0 + {at.x} - {b}",
            f"torch.add({x}, {b}, alpha={a})", f"torch.sub({x}, {b}, alpha={a})", f"torch.rsub({x}, {b}, alpha={a})",
            f"{x}.clone().mul_({a}).sub_({b})", f"torch.add({x}, {at.x}, alpha={a})", f"({x} + {b}) * {a}",
        )
    )  # fmt: skip


def _broadcasting(at: Source, shape: Shape) -> Shape:
    """A shape (with or without batch) that broadcasts to (1, *shape)."""
    some = tuple(1 if at.chance(0.4) else size for size in shape)
    return at.pick((1, *some), some, some[at.whole(0, len(some)) :], ())


def weighted(at: Source) -> None:
    """With a parameter or a buffer, elementwise, with every way of broadcasting."""
    x, shape = at.reduced(), _broadcasting(at, at.shape)
    fitting = [w.text for w in at.weights if _fits(w.shape, at.shape)]
    w = at.pick(*fitting) if fitting and at.chance(0.4) else at.tensor(shape)
    match at.whole(0, 9):
        case 0:
            text = f"{x} / {at.tensor(shape, at.near_one)}"
        case 1:
            text = f"{w} / ({x} * {x} + 1.5)"
        case 2:
            text = f"torch.sub({w}, {x}, alpha={at.pick(0.5, -2, 0)})"
        case 3:
            text = f"{x} * ({w} + 1)"
        case 4:
            text = f"{x} * torch.tanh({w}) - {w}"
        case 5 | 6:
            text = f"{x} * {w}"
        case 7:
            text = f"{w} - {x}"
        case _:
            text = f"{x} + {w}"
    at.line(text)


def _fits(small: Shape, large: Shape) -> bool:
    """Whether a tensor broadcasts to (1, *large)."""
    padded = (1,) * (len(large) + 1 - len(small)) + small
    pairs = zip(padded, (1, *large), strict=False)
    return len(padded) == len(large) + 1 and all(a in (1, b) for a, b in pairs)


def widened(at: Source) -> None:
    """x, with sizes of one spread by what it meets: a learned constant input, say."""
    if 1 not in at.shape:
        raise Unsuited("nothing to spread")
    shape = tuple(at.whole(1, 5) if size == 1 else at.pick(1, size) for size in at.shape)
    w = at.tensor(at.pick(shape, (1, *shape)))
    at.line(at.pick(f"{w} * (1 + {at.x})", f"{at.x} + {w}", f"{at.x} * {w}"))


def pair(at: Source) -> None:
    """Two activations: of one shape, or one spread over the other; x itself twice."""
    others = [n for n in at.variables if len(at.shape_of(n)) == len(at.shape) and _fits(at.shape_of(n), at.shape)]
    x, y = at.x, at.pick(*others)
    at.line(
        at.pick(
            f"{x} + {y}", f"{x} - {y}", f"{y} - {x}", f"{x} * {y}", f"{x} / ({y} * {y} + 1)",
            f"{x} / (2 + {y}.tanh())",
            f"{x} * {x}", f"{x} + {x}", f"torch.add({y}, {x}, alpha={at.pick(-0.5, 2, 0)})",
            f"{x} * torch.sigmoid({y})", f"torch.maximum({x}, {y})", f"torch.min({y} - 0.1, {x})",
            f"torch.max({x}, {x}.relu())",
            f"torch.sigmoid({x}) / ({x} * {x} + 0.7)", f"{x} + 0.5 * torch.tanh({y})", f"{x} - {x} * 0.25",
        )
    )  # fmt: skip


def linear(at: Source) -> None:
    size, out = at.shape[-1], at.pick(at.whole(1, 9), at.whole(1, 9), at.whole(10, 70))
    if math.prod(at.shape) // size * out > MOST_NUMBERS:
        raise Unsuited("too wide")
    there = [w for w in at.weights if len(w.shape) == 2 and size in w.shape]
    if there and at.chance(0.4):
        w = at.pick(*there)
        if w.shape[1] == size and at.chance(0.7):
            bias = at.pick("None", at.vector(w.shape[0]))
            at.line(f"F.linear({at.x}, {w.text}, {bias})")
        elif w.shape[0] == size:
            at.line(at.pick(f"F.linear({at.x}, {w.text}.t())", f"torch.matmul({at.x}, {w.text})", f"{at.x} @ {w.text}"))
        else:
            raise Unsuited("transposed")
    elif at.chance(0.5):
        at.line(f"{at.make(f'nn.Linear({size}, {out}, bias={at.chance(0.6)})')}({at.x})")
    elif at.chance(0.5):
        at.line(f"F.linear({at.x}, {at.tensor((out, size))}, {at.pick('None', at.vector(out))})")
    elif len(at.shape) == 1 and at.chance(0.3):
        at.line(f"torch.addmm({at.vector(out)}, {at.x}, {at.tensor((size, out))})")
    else:
        at.line(f"{at.x} @ {at.tensor((size, out))}")


def _map_settings(at: Source, transposed: bool) -> str:
    stride = (at.pick(1, 1, 2, 3), at.pick(1, 1, 2, 3))
    dilation = (at.pick(1, 1, 1, 2, 3), at.pick(1, 1, 1, 2))
    text = f"stride={stride}, padding={(at.whole(0, 3), at.whole(0, 2))}, dilation={dilation}"
    if not transposed:
        return text
    most = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
    return f"{text}, output_padding={(at.whole(0, most[0]), at.whole(0, most[1]))}"


def _rank(at: Source, rank: int) -> None:
    if len(at.shape) != rank:
        raise Unsuited(f"rank {len(at.shape)}")


def conv(at: Source) -> None:
    _rank(at, 3)
    c, out, kernel = (
        at.shape[0],
        at.pick(at.whole(1, 6), at.whole(1, 6), at.whole(7, 40)),
        (at.whole(1, 4), at.whole(1, 5)),
    )
    groups = at.pick(1, 1, *[d for d in range(2, c + 1) if c % d == 0])
    out = -(-out // groups) * groups
    transposed = at.chance(0.55)
    name, setting = ("nn.ConvTranspose2d", "transpose") if transposed else ("nn.Conv2d", "")
    there = [w for w in at.weights if len(w.shape) == 4 and w.shape[not transposed] == c]
    settings = _map_settings(at, transposed)
    function = "F.conv_transpose2d" if setting else "F.conv2d"
    if there and at.chance(0.5):
        w = at.pick(*there)
        bias = at.pick("None", at.vector(w.shape[1 if transposed else 0]))
        at.line(f"{function}({at.x}, {w.text}, {bias}, {settings})")
    elif at.chance(0.25):
        w = at.tensor((c, out // groups, *kernel) if transposed else (out, c // groups, *kernel))
        at.line(f"{function}({at.x}, {w}, {at.pick('None', at.vector(out))}, {settings}, groups={groups})")
    elif not transposed and at.chance(0.2):
        odd = (at.pick(1, 3), at.pick(1, 3, 5))
        at.line(f"{at.make(f'nn.Conv2d({c}, {out}, {odd}, padding={chr(39)}same{chr(39)}, groups={groups})')}({at.x})")
    else:
        bias = at.chance(0.6)
        at.line(f"{at.make(f'{name}({c}, {out}, {kernel}, {settings}, groups={groups}, bias={bias})')}({at.x})")


def batch_norm(at: Source) -> None:
    if len(at.shape) > 3:
        raise Unsuited("rank")
    kind, channels = ("BatchNorm2d" if len(at.shape) == 3 else "BatchNorm1d"), at.shape[0]
    if at.chance(0.15):
        weight, bias = at.pick("None", at.vector(channels)), at.pick("None", at.vector(channels))
        statistics = [at.make(f"torch.zeros({channels})", fill) for fill in (at.normal, at.near_one)]
        at.line(f"F.batch_norm({at.x}, {statistics[0]}, {statistics[1]}, {weight}, {bias}, eps={at.pick(1e-5, 1e-3)})")
        return
    name = at.make(f"nn.{kind}({channels}, affine={at.chance(0.7)}, eps={at.pick(1e-5, 1e-2, 1e-8)})", at.near_one)
    layer = getattr(at.module, name[5:]).eval()
    at.normal(layer.running_mean)
    at.near_one(layer.running_var)
    if at.chance(0.2):
        layer.running_var[0] = at.pick(1e-6, 1e-12, 0.0)
        at.setup.append(f"{name}.running_var[0] = {float(layer.running_var[0])}")
    at.line(f"{name}({at.x})")


def _factored(at: Source, n: int, rank: int) -> Shape:
    """A random shape of a rank and n numbers."""
    sizes = [1] * rank
    for prime in _primes(n):
        sizes[at.whole(0, rank - 1)] *= prime
    return tuple(sizes)


def _primes(n: int) -> list[int]:
    for p in range(2, n + 1):
        if n % p == 0:
            return [p, *_primes(n // p)]
    return []


def reshape(at: Source) -> None:
    rank = at.pick(1, 2, 3, 3, 3, 4)
    sizes = ", ".join(map(str, _factored(at, math.prod(at.shape), rank)))
    texts = [f"{at.x}.reshape({at.x}.shape[0], {sizes})", f"{at.x}.reshape(-1, {sizes})", f"{at.x}.flatten(1)"]
    at.line(at.pick(*texts, f"{at.x}.flatten(1).unflatten(1, ({sizes},))"))


def reorder(at: Source) -> None:
    rank = len(at.shape)
    dims = at.random.sample(range(1, rank + 1), rank)
    a, b = at.whole(1, rank), at.whole(1, rank)
    ones = [d + 1 for d, size in enumerate(at.shape) if size == 1]
    texts = [f"{at.x}.permute(0, {', '.join(map(str, dims))})", f"{at.x}.transpose({a}, {b - rank - 1})"]
    texts += [f"{at.x}.squeeze({at.pick(*ones)})"] if ones and rank > 1 else []
    texts += [f"{at.x}.unsqueeze({at.pick(a, -1)})"] if rank < 4 else []
    at.line(at.pick(*texts))


def enlarge(at: Source) -> None:
    _rank(at, 3)
    c, h, w = at.shape
    squares = [r for r in (2, 3) if c % (r * r) == 0]
    if squares and at.chance(0.6):
        at.line(f"F.pixel_shuffle({at.x}, {at.pick(*squares)})")
        return
    high, wide = at.pick(1, 2, 3, 7), at.pick(1, 2, 3, 5)
    factor = at.pick(f"scale_factor=({high}, {wide})", f"scale_factor={high}", f"size=({h * high}, {w * wide})")
    if at.chance(0.08):
        factor = at.pick("scale_factor=1.4", "scale_factor=2.3", "scale_factor=3.4", "scale_factor=(1, 5.7)")
    at.line(f"F.interpolate({at.x}, {factor}, mode='nearest')")


def shuffled(at: Source) -> None:
    """A pixel shuffle with the channels that it takes."""
    _rank(at, 3)
    r = at.pick(2, 2, 3)
    at.line(f"{at.make(f'nn.Conv2d({at.shape[0]}, {at.whole(1, 2) * r * r}, 1)')}({at.x})")
    at.line(f"F.pixel_shuffle({at.x}, {r})")


def residual(at: Source) -> None:
    """A block of two lines around which x goes."""
    x, shape = at.x, at.shape
    if len(shape) == 3:
        layer = f"nn.Conv2d({shape[0]}, {shape[0]}, 3, padding=1)"
    else:
        layer = f"nn.Linear({shape[-1]}, {shape[-1]})"
    name = at.make(layer)
    at.line(f"torch.tanh({name}({x}))")
    if at.chance(0.3):
        at.line(f"{name}({at.x})")  # the same weights once more
    at.line(f"{at.x} + {x}")


def nothing(at: Source) -> None:
    """What does nothing in eval mode."""
    at.line(at.pick(f"{at.make('nn.Dropout(0.3)')}({at.x})", f"{at.x}.contiguous()", f"{at.x}.clone()"))


LINES: dict[Callable[[Source], None], float] = {
    activation: 4, number: 1, weighted: 2, widened: 0.7, pair: 1.2, linear: 2, conv: 5, batch_norm: 1.5, reshape: 1,
    reorder: 1, enlarge: 1, shuffled: 0.3, residual: 0.8, nothing: 0.2, **TENSORS,
}  # fmt: skip


def add(at: Source) -> None:
    """One line more, of any kind that fits."""
    while True:
        try:
            return at.random.choices(list(LINES), list(LINES.values()))[0](at)
        except Unsuited:
            continue


def _image(at: Source) -> None:
    """Lines that make an image of what there is: 1 to 5 channels, a side of at most 41 pixels."""
    n = math.prod(at.shape)
    shapes = [_factored(at, n, 3) for _ in range(20)]
    good = [s for s in shapes if s[0] <= 5 and max(s) <= 41]
    if len(at.shape) == 3 and at.shape[0] <= 5 and max(at.shape) <= 41:
        return
    if good and at.chance(0.6):
        at.line(f"{at.x}.reshape({at.x}.shape[0], {', '.join(map(str, at.pick(*good)))})")
        return
    at.line(f"{at.x}.flatten(1)")
    c, h, w = at.whole(1, 5), at.whole(1, 9), at.whole(1, 9)
    if n * c * h * w > 20 * MOST_NUMBERS:
        c = h = w = 2
    at.line(f"{at.make(f'nn.Linear({n}, {c * h * w})')}({at.x})")
    at.line(f"{at.x}.reshape(-1, {c}, {h}, {w})")


def draw(seed: int) -> tuple[Drawn, Shape, Shape]:
    """A generator, the shape of its latents, and that of its images."""
    chooser = random.Random(seed)
    latent_shape = chooser.choice(
        [
            (chooser.randint(1, 8),), (chooser.randint(2, 8),), (chooser.randint(1, 8), 1, 1), (3, 2, 4), (2, 3, 1),
            (chooser.randint(1, 4), chooser.randint(1, 4)), (2, 1, 3, 2), (4, 3, 3),
            (2, 1, 2, 1, 3),
        ]
    )  # fmt: skip
    at = Source(seed, latent_shape)
    if len(at.shape) == 1 and at.chance(0.4):  # the usual first layers
        c, h, w = at.whole(2, 5), at.whole(1, 5), at.whole(1, 5)
        at.line(f"{at.make(f'nn.Linear({at.shape[0]}, {c * h * w}, bias={at.chance(0.5)})')}({at.x})")
        at.line(f"{at.x}.reshape(-1, {c}, {h}, {w})")
    elif len(at.shape) == 1 and at.chance(0.6):
        at.line(f"{at.x}.reshape(-1, {at.shape[0]}, 1, 1)")
    for _ in range(at.pick(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12)):
        add(at)
    _image(at)
    if at.chance(0.1):
        at.tensor((2, 3))  # a parameter that is not used
    match at.pick("tanh", "tanh", "sigmoid", "none", "batch norm"):
        case "tanh":
            at.line(f"torch.tanh({at.x})")
        case "sigmoid":
            at.line(f"torch.sigmoid({at.x})")
        case "batch norm":
            with contextlib.suppress(Unsuited):
                batch_norm(at)
    return at.finished(), latent_shape, at.shape
