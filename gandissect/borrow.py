"""Borrow, don't seize: a user's modules are as they were after the block.

with borrowed(gan.generator.module, gan.discriminator.module):
    ...                                  # eval mode, no parameter collects gradients by accident
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def borrowed(*modules: nn.Module) -> Generator[None]:
    """Eval mode for the block; training flags, ``grad``s, ``requires_grad``, grad mode and RNG state are restored after it.

    Parameters ask for no gradients inside, so a backward pass to an image or a latent leaves nothing on them. Activations
    declared ``inplace`` work out of place inside: otherwise they would overwrite the output of the layer before them, which
    may be the one that is being read.
    """
    flags = [(part, part.training) for module in modules for part in module.modules()]
    inplace = [part for part, _ in flags if getattr(part, "inplace", None) is True]
    asked = [(p, p.requires_grad, p.grad) for module in modules for p in module.parameters()]
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        try:
            for part, _ in flags:
                part.training = False
            for part in inplace:
                part.inplace = False  # type: ignore[assignment]  # nn.Module types attributes as Tensor | Module
            for parameter, _, _ in asked:
                parameter.requires_grad_(False)
            yield
        finally:
            for part in inplace:
                part.inplace = True  # type: ignore[assignment]  # as above
            for part, training in flags:
                part.training = training
            for parameter, requires_grad, grad in asked:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
