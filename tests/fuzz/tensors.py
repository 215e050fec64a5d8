"""Lines for layers over whole tensors: sums, norms, products, parts, edges, sizes, constants, computed weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tests.fuzz.source import MOST_NUMBERS, Shape, Source, Unsuited


def _dim(at: Source, rank: int | None = None) -> int:
    """A dimension of a sample, from the front or from the end."""
    rank = len(at.shape) if rank is None else rank
    dim = at.whole(1, rank)
    return at.pick(dim, dim - rank - 1)


def _size(at: Source, dim: int) -> int:
    return at.shape[dim - 1 if dim > 0 else dim]


def smooth(at: Source) -> None:
    """Activations that not all engines had from the first, and powers."""
    x, in_place = at.reduced(), at.chance(0.1)
    low, high = at.pick((-1.0, 1.0), (-0.5, 2.0), (0.0, 1.5), (-2, -1))
    at.line(
        at.pick(
            f"F.hardtanh({x}, {low}, {high}, inplace={in_place})",
            f"F.relu6({x})", f"F.hardswish({x}, inplace={in_place})", f"F.mish({x})", f"F.hardsigmoid({x})",
            f"F.logsigmoid({x})", f"F.softsign({x})", f"{x} - torch.tanh({x})", f"torch.clamp({x}, {low}, {high})",
            f"{x}.clamp(min={low})", f"{x}.clamp(max={high})", f"{x}.clamp_min({low})", f"{x}.clamp_max({high})",
            f"torch.exp({x}.clamp(max=2))", f"{x}.clone().mul_(0.1).exp_()", f"torch.log({x}.abs() + 0.3)",
            f"torch.log({x} * {x} + 1)", f"{x}.abs()", f"{x} ** {at.pick(2, 3, 1)}", f"({x} * {x} + 0.4) ** -0.5",
            f"({x}.abs() + 0.2).pow({at.pick(0.5, 1.5, -0.3)})", f"({x}.square() + 0.5).sqrt()",
            f"torch.erf({x})", f"{x} * 0.5 * (1 + torch.erf({x} / 2**0.5))", f"torch.rsqrt({x} * {x} + 0.7)",
            f"1 / ({x}.abs() + 0.8)", f"(1.2 + {x}.sigmoid()).reciprocal()",
        )
    )  # fmt: skip


def prelu(at: Source) -> None:
    weight = at.vector(at.pick(1, at.shape[0]))
    at.line(at.pick(f"F.prelu({at.x}, {weight})", f"{at.make(f'nn.PReLU({at.pick(1, at.shape[0])})')}({at.x})"))


def summed(at: Source) -> None:
    """Over some dimensions; what is left is spread over x again, or goes on by itself."""
    x, rank = at.reduced(), len(at.shape)
    dims = [at.pick(d, d - rank - 1) for d in at.random.sample(range(1, rank + 1), at.whole(1, min(rank, 3)))]
    over = at.pick(dims, dims, dims[0])
    keep = at.chance(0.6) or len(dims) == rank
    most = f"{over}, keepdim={keep}"
    text = at.pick(
        f"{x}.sum({most})", f"{x}.mean({most})", f"torch.mean({x}, dim={most})", f"{x}.var({most}, unbiased=False)",
        f"torch.var({x}, dim={most}, correction={at.pick(0, 1)})", f"({x}.var({most}, correction=0) + 0.2).sqrt()",
        f"{x}.std({most})", f"(1e-3 + {x}.square().sum({most})).rsqrt()",
        f"torch.linalg.vector_norm({x}, dim={most})", f"{x}.norm(dim={most})",
    )  # fmt: skip
    if keep and at.chance(0.6):
        text = at.pick(f"{x} - {text}", f"{x} * {text}", f"{x} + {text}", f"{x} / ({text} + 1.5)")
    at.line(text)


def spread(at: Source) -> None:
    """Softmax, and norms by the sample's own statistics."""
    x, rank, channels, eps = at.x, len(at.shape), at.shape[0], at.pick(1e-5, 1e-3, 0.1)
    last = at.shape[rank - at.whole(1, rank) :]
    groups = at.pick(*[d for d in range(1, channels + 1) if channels % d == 0])
    if math.prod(last) < 3 or math.prod(at.shape) < 3 * groups:
        raise Unsuited("statistics of two numbers are signs: their gradients are all rounding")
    kinds = {
        "softmax": lambda: f"F.softmax({x}, dim={_dim(at)})",
        "layer": lambda: f"F.layer_norm({x}, {last}, eps={eps})",
        "layer module": lambda: (
            f"{at.make(f'nn.LayerNorm({last}, eps={eps}, elementwise_affine={at.chance(0.7)})', at.near_one)}({x})"
        ),
        "layer weights": lambda: f"F.layer_norm({x}, {last}, {at.tensor(last)}, {at.pick('None', at.tensor(last))})",
        "group": lambda: f"{at.make(f'nn.GroupNorm({groups}, {channels}, eps={eps})', at.near_one)}({x})",
        "rms": lambda: f"F.rms_norm({x}, {last}, {at.pick('None', at.tensor(last))}, eps={eps})",
        "normalize": lambda: f"F.normalize({x}, dim={_dim(at)})",
    }
    if rank == 3:
        kinds["instance"] = lambda: f"{at.make(f'nn.InstanceNorm2d({channels}, affine={at.chance(0.5)})')}({x})"
        kinds["own"] = lambda: (
            f"{at.make(f'nn.BatchNorm2d({channels}, eps={eps}, track_running_stats=False)', at.near_one)}({x})"
        )
    at.line(kinds[at.pick(*kinds)]())


def product(at: Source) -> None:
    """Of two activations, or of a weight and an activation from the left."""
    x, (rows, size) = at.x, at.shape[-2:] if len(at.shape) > 1 else (1, 1)
    if len(at.shape) == 1:
        text = at.pick(
            f"({x}.unsqueeze(2) @ {x}.unsqueeze(1)).flatten(1)", f"torch.einsum('bi,bj->bij', {x}, {x}.tanh())",
            f"({x}.unsqueeze(1) * {x}.unsqueeze(2)).sum({at.pick(1, -1)})",
            f"torch.einsum('bi,ij->bj', {x}, {at.tensor((at.shape[0], at.whole(1, 6)))})",
            f"torch.matmul({at.tensor((at.whole(1, 6), at.shape[0]))}, {x}.unsqueeze(-1)).squeeze(-1)",
        )  # fmt: skip
        return at.line(text)
    weight = at.tensor((at.whole(1, 6), rows))
    others = [v for v in at.variables if at.shape_of(v)[-1:] == (size,) and len(at.shape_of(v)) == len(at.shape)]
    y = at.pick(*others, x)
    scores = f"{x} @ {y}.transpose(-1, {at.pick(-2, len(at.shape) - 1)})"
    texts = [
        f"{weight} @ {x}", f"torch.matmul({x}.mT, {weight}.t())", f"({scores}) * 0.5",
        f"torch.softmax({scores}, -1) @ {y}",
        f"F.scaled_dot_product_attention({x}, {y}, {y})", f"F.scaled_dot_product_attention({x}, {y}, {y}, scale=0.7)",
        f"F.scaled_dot_product_attention({x}, {x}, {x}, is_causal=True)",
        f"F.scaled_dot_product_attention({x}, {x}, {x}, attn_mask={at.tensor((rows, rows))})",
        f"torch.einsum('b...ik,b...jk->b...ij', {x}, {y})", f"torch.einsum('b...ij,ki->b...kj', {x}, {weight})",
        f"{x}.matmul({at.tensor((size,))}).unsqueeze(-1)",
    ]  # fmt: skip
    if len(at.shape) == 2:
        heads = at.pick(*[d for d in range(1, size + 1) if size % d == 0])
        first = at.chance(0.5)
        attention = f"nn.MultiheadAttention({size}, {heads}, batch_first={first}, bias={at.chance(0.7)})"
        seen = x if first else f"{x}.transpose(0, 1)"
        made = f"{at.make(attention)}({seen}, {seen}, {seen}, need_weights={at.chance(0.3)})[0]"
        texts += [f"torch.bmm({x}, {x}.mT)", *[made if first else f"{made}.transpose(0, 1)"] * 3]
    at.line(at.pick(*texts))


def part(at: Source) -> None:
    """Slices, pieces, single places; in another order, or several times."""
    x, dim = at.reduced(), _dim(at)
    size, rank = _size(at, dim), len(at.shape)
    start, step = at.whole(0, size - 1), at.pick(1, 1, 2)
    stop, place = at.whole(start + 1, size), at.whole(-size, size - 1)
    before = dim - 1 if dim > 0 else rank + dim  # dimensions of a sample before it
    colons = ", ".join([":"] * (before + 1))
    index = [at.whole(0, size - 1) for _ in range(at.whole(1, 6))]
    first = at.whole(1, size)
    sizes = [first, size - first] if first < size else [size]
    shifts = (at.whole(-3, 3), at.whole(0, 2))
    texts = [
        f"{x}[{colons}, {start}:{stop}:{step}]", f"{x}[{colons}, {start - size}:]",
        f"{x}.narrow({dim}, {start}, {stop - start})",
        f"{x}[{colons}, {index}]", f"{x}.index_select({dim}, torch.tensor({index}))", f"{x}.flip({dim})",
        f"torch.cat(torch.split({x}, {sizes}, dim={dim})[::-1], {dim})", f"torch.split({x}, {sizes}, {dim})[-1]",
        f"{x}.split({first}, {dim})[0]", f"{x}.chunk({at.whole(1, 3)}, dim={dim})[-1]", f"{x}.roll({shifts[0]}, {dim})",
        f"torch.roll({x}, {shifts}, ({dim}, -1))", f"torch.stack({x}.unbind({dim})[::-1], {dim})",
        f"F.glu({x}, {dim})" if size % 2 == 0 else f"{x}[{colons}, -1:]",
    ]  # fmt: skip
    if rank > 1:
        texts += [f"{x}.select({dim}, {place})", f"{x}[{colons}, {place}]", f"{x}.unbind({dim})[{place}]"]
    at.line(at.pick(*texts))


def _without(shape: Shape, dim: int) -> tuple[Shape, Shape]:
    return shape[:dim], shape[dim + 1 :]


def joined(at: Source) -> None:
    """Several values along a dimension, repeated, stacked, or spread."""
    x, rank, dim = at.x, len(at.shape), _dim(at)
    along = dim - 1 if dim > 0 else rank + dim
    alike = [v for v in at.variables if _without(at.shape_of(v), along) == _without(at.shape, along)]
    y, ones = at.pick(*alike, x), [i + 1 for i, size in enumerate(at.shape) if size == 1]
    weight = at.tensor((1, *at.shape))
    counts = [at.pick(1, 1, 2, 3) for _ in at.shape]
    texts = [
        f"torch.cat([{x}, {y}], dim={dim})", f"torch.cat(({y}, {weight}, {x}), {dim})",
        f"torch.cat([{x}, {weight}.expand({x}.shape[0], *{weight}.shape[1:])], {dim})",
        f"{x}.repeat(1, {', '.join(map(str, counts))})", f"{x}.repeat_interleave({at.whole(2, 3)}, dim={dim})",
        f"{x}.tile({counts[-1]})",
    ]  # fmt: skip
    if rank < 4:
        new = at.whole(1, rank + 1)
        wide = ", ".join(["-1"] * new + [str(at.whole(1, 4))] + ["-1"] * (rank + 1 - new))
        texts += [
            f"torch.stack([{x}, {x}.tanh()], dim={at.pick(new, new - rank - 2)})",
            f"{x}.unsqueeze({new}).expand({wide})",
        ]
    if ones:
        one = at.pick(*ones)
        texts.append(f"{x}.expand({', '.join('3' if d == one else '-1' for d in range(rank + 1))})")
    if math.prod(at.shape) * 3 > MOST_NUMBERS:
        raise Unsuited("too many")
    at.line(at.pick(*texts))


def edges(at: Source) -> None:
    rank = len(at.shape)
    sizes = [at.whole(-1, 2) for _ in range(2 * at.whole(1, min(rank, 3)))]
    texts = [f"F.pad({at.x}, {sizes}, value={at.pick(0.0, 0.0, 0.7, -2)})", f"F.pad({at.x}, {sizes})"]
    if rank == 3:
        around = [at.whole(0, 2) for _ in range(4)]
        texts += [f"F.pad({at.x}, {around}, mode={mode!r})" for mode in ("reflect", "replicate", "circular")]
        c, mode = at.shape[0], at.pick("reflect", "replicate", "circular")
        conv = f"nn.Conv2d({c}, {at.whole(1, 4)}, 3, padding=(1, {at.whole(0, 2)}), padding_mode={mode!r})"
        texts.append(f"{at.make(conv)}({at.x})")
    at.line(at.pick(*texts))


def resized(at: Source) -> None:
    if len(at.shape) != 3:
        raise Unsuited("no image")
    x, mode = at.x, at.pick("bilinear", "bicubic")
    size = at.pick(f"size=({at.whole(1, 9)}, {at.whole(1, 9)})", f"scale_factor={at.pick(2, 1.5, 0.6, (2, 0.5))}")
    how = at.pick(f"align_corners={at.chance(0.5)}", f"antialias={at.chance(0.7)}")
    kernel, stride = (at.whole(1, 3), at.whole(1, 3)), at.pick(1, 2, (2, 1))
    pool = f"F.avg_pool2d({x}, {kernel}, {stride}, {tuple(k // 2 for k in kernel)}, {at.chance(0.3)}, {at.chance(0.5)})"
    target = (at.pick(1, at.whole(1, 5)), at.pick("None", at.whole(1, 4)))
    at.line(
        at.pick(
            f"F.interpolate({x}, {size}, mode={mode!r}, {how})", f"F.interpolate({x}, {size}, mode={mode!r}, {how})",
            f"F.interpolate({x}, {size}, mode='{at.pick('nearest', 'nearest-exact')}')", pool,
            f"F.adaptive_avg_pool2d({x}, ({target[0]}, {target[1]}))",
            f"F.max_pool2d({x}, {kernel}, {stride}, {tuple(k // 2 for k in kernel)}, ceil_mode={at.chance(0.3)})",
        )
    )  # fmt: skip


def moved(at: Source) -> None:
    """The batch dimension somewhere else, something done there, and back."""
    rank = len(at.shape) + 1
    dims = at.random.sample(range(rank), rank)
    back, batch = [dims.index(d) for d in range(rank)], dims.index(0)
    y = f"{at.x}.permute({', '.join(map(str, dims))})"
    dim = at.pick(*[d for d in range(rank) if d != batch])
    size = ((1, *at.shape)[dims[dim]], (1, *at.shape)[dims[-1]])
    dim = at.pick(dim, dim - rank)
    texts = [
        f"torch.tanh({y})", f"F.softmax({y}, {dim})", f"{y}.flip({dim})", f"{y} - {y}.mean({dim}, keepdim=True)",
        f"torch.cat([{y}, {y}], {dim})", f"{y}.narrow({dim}, {at.whole(0, size[0] - 1)}, 1)", f"{y} * 2 + 1",
        f"{y}.unsqueeze({dim}).squeeze({dim})", f"{y}.roll(1, {dim})", f"{y} * {y}.sum({dim}, keepdim=True)",
        f"{y}.reshape({y}.shape).contiguous()", f"{y} + {at.tensor((size[1],))}", f"{y}.repeat_interleave(2, {dim})",
    ]  # fmt: skip
    if batch != rank - 1:
        texts += [f"F.linear({y}, {at.tensor((at.whole(1, 6), size[1]))})"] * 2
        texts += [f"F.layer_norm({y}, ({size[1]},))"] * 2 if size[1] > 2 else []
        texts.append(f"{y} @ {at.tensor((size[1], at.whole(1, 6)))}")
    texts = [f"({text}).permute({', '.join(map(str, back))})" for text in texts]
    texts += [
        f"{at.x}[0].unsqueeze(0)",
        f"{at.x}[0][None].tanh()",
        f"{at.x}.unsqueeze(0)[:, 0]",
        f"{at.x}.movedim(0, 1).movedim(1, 0)",
    ]
    at.line(at.pick(*texts))


def constant(at: Source) -> None:
    """With what is computed of buffers and numbers alone, or chosen by it."""
    x, size = at.reduced(), at.shape[-1]
    buffer = at.make(f"torch.zeros({', '.join(map(str, at.shape))})", at.normal)
    rows, width = at.whole(2, 5), at.whole(1, 4)
    table = at.make(f"nn.Embedding({rows}, {size})")
    label = at.make(f"torch.tensor([{at.whole(0, rows - 1)}])", _kept)
    texts = [
        f"{x} * ({buffer} > 0).to({x}.dtype)", f"torch.where({buffer} > 0.1, {x}, 0.5 * {x})",
        f"{x}.masked_fill({buffer} < 0, {at.pick(0.0, 0.6, -1)})", f"torch.where({buffer} > 0, {x}, {buffer})",
        f"{x} + torch.linspace(-1, 1, {size}).to({x})", f"{x} * torch.arange({size}, dtype={x}.dtype).cos()",
        f"{x} + {buffer}.square().mean(-1, keepdim=True).sqrt()", f"{x} @ torch.eye({size}).to({x}).flip(0)",
        f"{x}.lerp({buffer}, {at.pick(0.3, 0.8)})", f"torch.lerp({x}, {x}.tanh(), {buffer}.sigmoid())",
        f"{x} + F.one_hot(torch.tensor({at.whole(0, size - 1)}), {size}).to({x})",
        f"{x} * {table}({label}).view({size})", f"{x} + {table}(torch.tensor({at.whole(0, rows - 1)}))",
        f"{x} * {table}.weight[{label}[0]]" if at.chance(0.3) else f"{x} - {table}({label})[0]",
        f"F.softmax({x}.masked_fill({buffer} > 1, -1e4), -1)",
    ]  # fmt: skip
    if len(at.shape) == 1:
        class_of = f"torch.full(({x}.shape[0],), {at.whole(0, rows - 1)}, dtype=torch.long)"
        small = at.make(f"nn.Embedding({rows}, {width})")
        texts += [
            f"torch.cat([{x}, {small}({class_of})], 1)", f"{x} * {table}({class_of})",
            f"torch.cat([{small}({label}).expand({x}.shape[0], -1), {x}], dim=-1)",
        ]  # fmt: skip
    at.line(at.pick(*texts))


def _kept(tensor: torch.Tensor) -> None:
    """Numbers that are as they were given."""


def stopped(at: Source) -> None:
    """With what has no gradient: an activation, or a weight."""
    x, shape = at.reduced(), at.shape
    y = at.pick(*[v for v in at.variables if at.shape_of(v) == shape], x)
    w = at.tensor((at.whole(1, 6), shape[-1]))
    at.line(
        at.pick(
            f"{x} + {y}.detach()", f"{x} * torch.tanh({y}).detach()", f"{x} / ({y}.detach().square() + 1.5).sqrt()",
            f"{x} - {y}.data.mean(-1, keepdim=True)", f"F.linear({x}, {w}.detach())", f"{x} + {w}.sum(0).detach_()",
            f"F.linear({x}, {w} / ({w}.detach().norm() + 0.5))", f"{y}.detach().relu() - {x}",
        )
    )  # fmt: skip


def computed(at: Source) -> None:
    """Weights that are computed from parameters."""
    x, size, out = at.x, at.shape[-1], at.whole(1, 7)
    w = at.tensor((out, size))
    texts = [
        f"F.linear({x}, {w} * 0.7)", f"F.linear({x}, {w} / {w}.norm(dim=1, keepdim=True))",
        f"F.linear({x}, F.normalize({w}, dim={at.pick(0, 1, -1)}))", f"{x} @ ({w}.abs() + 0.1).mT",
        f"F.linear({x}, torch.cat([{w}, {w} * {w}], 0))", f"F.linear({x}, {w}[{at.whole(0, out - 1)}:])",
        f"F.linear({x}, {w} - {w}.mean(0))", f"{x} * torch.softmax({w}, -1)[0]", f"{x} + torch.exp({w}).sum(0)",
        f"F.linear({x}, {w} @ {w}.t() @ {w})",
    ]  # fmt: skip
    norm = "nn.utils.parametrizations.weight_norm"
    texts.append(f"{at.make(f'{norm}(nn.Linear({size}, {out}), dim={at.pick(0, 1, None)})')}({x})")
    if len(at.shape) == 3:
        texts.append(f"{at.make(f'{norm}(nn.Conv2d({at.shape[0]}, {out}, 3, padding=1))')}({x})")
        kernel = at.tensor((out, at.shape[0], 1, 1))
        texts.append(f"F.conv2d({x}, {kernel} / {kernel}.square().sum((1, 2, 3), keepdim=True).sqrt())")
    at.line(at.pick(*texts))


TENSORS: dict[Callable[[Source], None], float] = {
    smooth: 1.5, prelu: 0.4, summed: 1, spread: 1, product: 1.2, part: 1.5, joined: 1, edges: 0.6, resized: 0.8,
    moved: 1, constant: 0.8, computed: 0.2, stopped: 0.4,
}  # fmt: skip
