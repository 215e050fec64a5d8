"""A program held to the module that it was made of."""

from __future__ import annotations

import copy

import torch

from adgan_fast.engine import batched
from adgan_fast.generator.rules import lower
from tests.support.generators import Case


def assert_same_numbers(case: Case, rtol: float = 1e-9) -> None:
    """Program and module: images and gradients, in float64, for each way of owning weights (G groups of B)."""
    module = case.double().eval()
    program = lower(module, case.latent_shape)
    assert program.image_shape == case.image_shape
    random = torch.Generator().manual_seed(5)
    for groups, samples in ((1, 1), (3, 1), (1, 3), (2, 2)):
        z = torch.randn(groups, samples, *case.latent_shape, generator=random, dtype=torch.float64)
        weights = [
            p + 0.01 * torch.randn(groups, *p.shape, generator=random, dtype=torch.float64) for p in program.parameters
        ]
        up = torch.randn(groups, samples, *case.image_shape, generator=random, dtype=torch.float64)
        leaves = [z.requires_grad_(), *(w.requires_grad_() for w in weights)]
        made = batched.forward(program, leaves[0], leaves[1:], program.constants)
        grads = torch.autograd.grad((made * up).sum(), leaves)
        for g in range(groups):
            own = copy.deepcopy(module)
            for name, w in zip(program.names, weights, strict=True):
                own.get_parameter(name).data = w[g].detach().clone()
            latent = z[g].detach().clone().requires_grad_()
            want = torch.cat([own(one[None]) for one in latent])  # what it does to one latent is what is meant
            torch.testing.assert_close(made[g], want, rtol=1e-10, atol=1e-12)
            inputs = [latent, *(own.get_parameter(name) for name in program.names)]
            for found, true in zip(grads, torch.autograd.grad((want * up[g]).sum(), inputs), strict=True):
                torch.testing.assert_close(found[g], true, rtol=rtol, atol=rtol / 10)
