"""Where the native engine's time goes: by layer and phase, beside the machine's own rates.

    python -m bench.studies.profile_native [--weights per_seed] [--open half|all] [--size 32] [--channels 1]
        [--pairs 64] [--case kl32x3]

Times are of one thread, but for the last line's. Arithmetic is what a dense computation would need (2 · multiply-adds);
the engine skips what is zero, so its rate may be above the machine's.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from adgan_fast import ops
from adgan_fast.config import WEIGHTS
from adgan_fast.engine.native.encode import encode
from adgan_fast.generator.rules import lower
from adgan_fast.models import DCGANGenerator

from ..race import families
from ..race.rows import cores


def generator(size: int, channels: int, width: int, opened: str) -> nn.Module:
    """DCGAN with batch-norm statistics of its own samples: half of its ReLUs are open; or, shifted, nearly all."""
    random = torch.Generator().manual_seed(0)
    module = DCGANGenerator(size, channels, 256, width, generator=random)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
            norm.bias.fill_(2.0 if opened == "all" else 0.0)
        module.train()(torch.randn(256, 256, generator=random))
    return module.eval()


def sgemm_rate() -> float:
    """FLOP/s of a large float32 product on one thread."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    a @ b
    return 2 * 1536**3 / best(lambda: a @ b)


def stream_rate(megabytes: int) -> float:
    """Bytes/s of y += x on one thread, by working set."""
    x = torch.ones(megabytes * 2**20 // 8)
    y = torch.ones_like(x)
    y.add_(x)
    return 12 * len(x) / best(lambda: [y.add_(x) for _ in range(8)]) * 8


def best(work, repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="per_seed", choices=WEIGHTS)
    parser.add_argument("--open", default="half", choices=("half", "all"))
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--case", choices=families.FAMILIES, help="a generator of bench/race/families.py, not a DCGAN")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    at = parser.parse_args()
    reason = ops.load_extension()
    if reason:
        raise SystemExit(reason)
    torch.set_num_threads(1)
    if at.case is None:
        latent_shape, size, channels = (256,), at.size, at.channels
        program = lower(generator(size, channels, at.width, at.open), latent_shape)
    else:
        latent_shape, size, channels = families.FAMILIES[at.case].latent_shape, 32, families.FAMILIES[at.case].channels
        program = lower(families.made(at.case), latent_shape)
    s = min(8, at.pairs) if at.weights == "per_seed" else min(64, at.pairs)
    n = max(1, at.pairs // s)
    random = torch.Generator().manual_seed(1)
    images = nn.functional.interpolate(
        torch.randn(n, channels, 8, 8, generator=random), size=(size, size), mode="bicubic"
    ).tanh()
    arguments = ops.SearchArguments(
        images.contiguous(), torch.randn(s, *latent_shape, generator=random), list(program.parameters),
        list(program.constants), *encode(program), WEIGHTS.index(at.weights), ops.NATIVE_LOSSES.index("l2"), at.steps,
        [0.25, 5e-5, 0.5, 0.999, 1e-8],
    )  # fmt: skip
    runs = [ops.native_profile(arguments) for _ in range(4)]
    seconds = min(runs, key=lambda run: float(run.sum())) / (n * s)
    whole = best(lambda: ops.native_search(*arguments)) / (n * s)
    torch.set_num_threads(cores())
    shared = best(lambda: ops.native_search(*arguments)) / (n * s)
    torch.set_num_threads(1)
    print(
        f"{program.parameter_count:,} parameters, {program.multiply_adds:,} multiply-adds a pass, "
        f"{at.weights}, {n}×{s} pairs"
    )
    print(
        f"sgemm {sgemm_rate() / 1e9:.0f} GFLOP/s; y += x: "
        + ", ".join(f"{stream_rate(size) / 1e9:.0f} GB/s of {size} MB" for size in (1, 8, 24, 128))
    )
    print(f"{'layer':44} {'forward':>9} {'backward':>9}   ms a pair")
    for layer, (forward, backward) in zip(program.layers, seconds.tolist(), strict=False):
        name = f"{layer.op} {layer.name}"[:43]
        rate = ""
        if work := program._multiply_adds(layer):
            passes = 3 if at.weights != "frozen" else 2
            dense = 2 * work * (1 + passes * at.steps)
            rate = f"   {dense / (forward + backward) / 1e9:6.0f} GFLOP/s if dense"
        print(f"{name:44} {forward * 1e3:9.3f} {backward * 1e3:9.3f}{rate}")
    print(
        f"{'operands; preparing and updating':44} {float(seconds[-1, 0]) * 1e3:9.3f} {float(seconds[-1, 1]) * 1e3:9.3f}"
    )
    work = 2 * program.multiply_adds * (1 + (3 if at.weights != "frozen" else 2) * at.steps)
    one, more = work / whole / 1e9, work / shared / 1e9
    print(f"all products, if dense: {one:.0f} GFLOP/s on one thread, {more:.0f} on {cores()}")
    print(f"{'sum':44} {float(seconds[:, 0].sum()) * 1e3:9.3f} {float(seconds[:, 1].sum()) * 1e3:9.3f}")
    print(f"{'whole, not timed by layer':44} {whole * 1e3:9.3f}")
    print(f"{f'on {cores()} threads':44} {shared * 1e3:9.3f} {whole / shared:9.2f} times as fast")


if __name__ == "__main__":
    main()
