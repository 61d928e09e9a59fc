"""What can be checked of an opened GAN without its author: each check gives a number and a verdict.

for check in verify(gan):
    print(check.name, check.verdict, check.says)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from gandissect.borrow import borrowed
from gandissect.gan import Gan, Generator
from gandissect.sampling import latents

Verdict = Literal["ok", "doubtful", "wrong", "not applicable"]

HEALTHY = 0.05  # Gaussian KL per unit: trained networks that are rebuilt rightly lie at or below this (docs/formats.md)
UNFIT = 2.0  # and networks that are not lie above this; nothing was observed between
_CAP = 20.0  # one dead unit must not decide alone
_FLOOR = 1e-5  # variance below BatchNorm's usual eps is noise
_SAMPLES = 128
_SAME = 1e-4
_ALIKE = 0.02


@dataclass(frozen=True)
class Check:
    """One check: what was measured, what it came to, and a sentence."""

    name: str
    verdict: Verdict
    says: str
    value: float | None = None


def gaussian_kl(measured: tuple[Tensor, Tensor], stored: tuple[Tensor, Tensor]) -> float:
    """Mean over units of KL(N(mean, var) of what was measured ‖ N(mean, var) of what training stored).

    Args:
        measured: (mean [C], variance [C]).
        stored: likewise.

    Returns:
        ≥ 0, at most 20; 0 for a perfect fit.
    """
    (mean, var), (wanted, spread) = measured, stored
    var, spread = var + _FLOOR, spread + _FLOOR
    kl = 0.5 * ((spread / var).log() + (var + (mean - wanted) ** 2) / spread - 1.0)
    return float(kl.detach().nan_to_num(_CAP, _CAP, _CAP).clamp(0.0, _CAP).mean())


def verify(gan: Gan) -> list[Check]:
    """All checks on the generator and, where there is one, the discriminator."""
    generator = gan.generator
    modules = [generator.module, *([gan.discriminator.module] if gan.discriminator else [])]
    checks: list[Callable[[], Check]] = [
        partial(_repeats, generator),
        partial(_batches, generator),
        partial(_statistics, generator),
        partial(_weights, generator),
        partial(_variety, generator),
        *(partial(_space, generator, space.name) for space in generator.inner),
    ]
    if gan.discriminator is not None:
        checks.append(partial(_judges, gan))
    with borrowed(*modules):
        return [check() for check in checks]


def _draw(generator: Generator, count: int) -> tuple[Tensor, Tensor | None]:
    z = latents(1, range(count), generator.latent).reshape(count, *generator.latent.shape).to(generator.device)
    labels = torch.arange(count, device=z.device) % generator.num_classes if generator.num_classes else None
    return z, labels


@torch.no_grad()
def _repeats(generator: Generator) -> Check:
    z, labels = _draw(generator, 4)
    off = float((generator(z, labels) - generator(z, labels)).abs().max())
    says = "the same latent gives the same image" if off == 0 else "noise is drawn anew at each call"
    return Check("repeatable", "ok" if off == 0 else "doubtful", says, off)


@torch.no_grad()
def _batches(generator: Generator) -> Check:
    z, labels = _draw(generator, 8)
    whole = generator(z, labels)
    single = torch.cat([generator(z[i : i + 1], None if labels is None else labels[i : i + 1]) for i in range(8)])
    off = float((whole - single).abs().max())
    says = f"images alone and in a batch of 8 differ by at most {off:.2g}"
    return Check("independent of the batch", "ok" if off < _SAME else "wrong", says, off)


@torch.no_grad()
def _statistics(generator: Generator) -> Check:
    """BatchNorm as an oracle: what arrives at each norm, with the batch's own statistics before it, against what is stored."""
    norms = [
        m
        for m in generator.module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    if not norms:
        return Check(
            "BatchNorm statistics", "not applicable", "no BatchNorm keeps statistics: nothing in the file can tell"
        )
    if generator.latent.prior == "image":
        return Check(
            "BatchNorm statistics",
            "not applicable",
            "training saw real pictures, and made-up ones have other statistics",
        )
    found: list[float] = []
    handles = [norm.register_forward_hook(partial(_as_in_training, found)) for norm in norms]
    try:
        generator(*_draw(generator, _SAMPLES))
    finally:
        for handle in handles:
            handle.remove()
    fit = sum(found) / len(found) if found else 0.0
    verdict: Verdict = "ok" if fit <= HEALTHY else "doubtful" if fit <= UNFIT else "wrong"
    says = f"mean KL {fit:.2g} over {len(found)} norms between measured and stored statistics (healthy ≤ {HEALTHY}, unfit > {UNFIT})"
    return Check("BatchNorm statistics", verdict, says, fit)


def _as_in_training(found: list[float], norm: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """Notes the mismatch at one norm and goes on with the batch's statistics, as training did."""
    assert (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm.running_mean is not None
        and norm.running_var is not None
    )
    x = args[0]
    dims = [dim for dim in range(x.dim()) if dim != 1]
    var, mean = torch.var_mean(x, dims, correction=0)
    found.append(gaussian_kl((mean, var), (norm.running_mean, norm.running_var)))
    return nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)


def _weights(generator: Generator) -> Check:
    """Whether every parameter has an effect on the images: none was put where nothing reads it."""
    parameters = {name: value for name, value in generator.module.named_parameters() if value.is_floating_point()}
    if not parameters:
        return Check("all weights used", "not applicable", "the network has no parameters of its own")
    wanted = [value.requires_grad for value in parameters.values()]
    try:
        for value in parameters.values():
            value.requires_grad_(True)
        z, labels = _draw(generator, 2)
        gradients = torch.autograd.grad(
            generator(z, labels).square().sum(), list(parameters.values()), allow_unused=True
        )
    except RuntimeError as error:
        return Check(
            "all weights used", "not applicable", f"no gradient reaches the weights ({str(error).splitlines()[0]})"
        )
    finally:
        for value, before in zip(parameters.values(), wanted, strict=True):
            value.requires_grad_(before)
    idle = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    share = len(idle) / len(parameters)
    says = f"{len(parameters) - len(idle)} of {len(parameters)} parameters reach the images"
    if idle:
        says += f"; not {', '.join(idle[:3])}{' …' if len(idle) > 3 else ''}"
    return Check("all weights used", "ok" if not idle else "doubtful", says, share)


@torch.no_grad()
def _variety(generator: Generator) -> Check:
    """Spread over samples, as a share of the spread over pixels and samples: 0 for a generator that makes one image."""
    images = generator(*_draw(generator, 64))
    share = float(images.std(0).mean() / images.std().clamp_min(1e-8))
    clipped = float((images.abs() > 0.999).float().mean())
    says = f"images differ by {share:.2f} of their contrast; {clipped:.0%} of their values are at the ends of the range"
    return Check("samples differ", "ok" if share > _ALIKE else "doubtful", says, share)


@torch.no_grad()
def _space(generator: Generator, name: str) -> Check:
    z, labels = _draw(generator, 4)
    space = generator.space(name)
    whole = generator.module(z, labels) if labels is not None else generator.module(z)
    off = float((space.leave(space.enter(z, labels), labels) - whole).abs().max())
    says = f"going through {name} changes images by at most {off:.2g}"
    return Check(f"space {name}", "ok" if off < _SAME else "wrong", says, off)


@torch.no_grad()
def _judges(gan: Gan) -> Check:
    assert gan.discriminator is not None
    z, labels = _draw(gan.generator, 32)
    images = gan.generator(z, labels)
    made = gan.discriminator(images, labels)
    stream = torch.Generator().manual_seed(0)
    noise = gan.discriminator((torch.rand(images.shape, generator=stream) * 2 - 1).to(images.device), labels)
    spread = float(torch.cat([made, noise]).std().clamp_min(1e-8))
    gap = float(made.mean() - noise.mean()) / spread
    says = f"generated images score {abs(gap):.1f} standard deviations {'above' if gap > 0 else 'below'} uniform noise"
    return Check("discriminator", "ok" if torch.isfinite(made).all() else "wrong", says, gap)


def described(checks: list[Check]) -> Iterator[str]:
    """One line for each check."""
    for check in checks:
        yield f"{check.verdict:<14} {check.name}: {check.says}"
