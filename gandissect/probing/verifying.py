"""What can be checked of an opened GAN without its author: each check gives a number and a verdict.

for check in verify(gan):
    print(check.name, check.verdict, check.says)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
OWN_EXCESS = (
    0.036  # largest excess variance of 38 discriminators on their own generator's images (docs/discriminator.md)
)
FOREIGN = 0.1  # above this a discriminator has hardly been trained on the images
_MADE_UP = "training saw real pictures, and made-up ones have other statistics"
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


@dataclass(frozen=True)
class Moments:
    """Mean [C] and variance [C] of what arrived at one BatchNorm, and what training stored there."""

    name: str
    measured: tuple[Tensor, Tensor]
    stored: tuple[Tensor, Tensor]


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


def variance_ratios(seen: Moments) -> Tensor:
    """Measured over stored variance of each unit: float32 [C]; a factor above 1 that all units share is taken off.

    Training averages the variances of batches of real and of generated images (Ioffe & Szegedy 2015, section 3.1), so the
    variance of a network's own images exceeds what is stored at most by one over their share of the batches: 2 where they
    alternate. A factor that all units share is contrast, or another scale of the weights, and tells nothing of the pictures.
    """
    ratio = (seen.measured[1] + _FLOOR) / (seen.stored[1] + _FLOOR)
    return (ratio / ratio.median().clamp_min(1.0)).nan_to_num()


def excess_variance(seen: Sequence[Moments]) -> float:
    """Mean over norms and their units of ½(r - 1 - ln r) where r > 1: the Kullback-Leibler divergence of variances, one-sided.

    Args:
        seen: what :func:`norm_moments` found, one norm at least; r are its :func:`variance_ratios`.

    Returns:
        ≥ 0; 0 where no unit varies more than was stored.
    """
    ratios = [variance_ratios(one).clamp_min(1.0) for one in seen]
    return float(torch.stack([(0.5 * (r - 1.0 - r.log())).clamp_max(_CAP).mean() for r in ratios]).mean())


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
        checks += [partial(_judges, gan), partial(_knows, gan)]
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
    if generator.latent.prior == "image":
        return Check("BatchNorm statistics", "not applicable", _MADE_UP)
    seen = norm_moments(generator.module, lambda: generator(*_draw(generator, _SAMPLES)))
    if not seen:
        return Check(
            "BatchNorm statistics", "not applicable", "no BatchNorm keeps statistics: nothing in the file can tell"
        )
    found = [gaussian_kl(one.measured, one.stored) for one in seen]
    fit = sum(found) / len(found)
    verdict: Verdict = "ok" if fit <= HEALTHY else "doubtful" if fit <= UNFIT else "wrong"
    says = f"mean KL {fit:.2g} over {len(found)} norms between measured and stored statistics (healthy ≤ {HEALTHY}, unfit > {UNFIT})"
    return Check("BatchNorm statistics", verdict, says, fit)


def norm_moments(module: nn.Module, run: Callable[[], object]) -> list[Moments]:
    """What arrives at each BatchNorm that keeps statistics while ``run`` calls ``module``, in the order of execution.

    Each norm goes on with the batch's own statistics, as in training; everything else runs in the mode it is in.
    """
    found: list[Moments] = []
    norms = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None
    }
    handles = [part.register_forward_hook(partial(_as_in_training, found, name)) for name, part in norms.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _as_in_training(
    found: list[Moments], name: str, norm: nn.Module, args: tuple[Tensor, ...], _output: Tensor
) -> Tensor:
    """Notes the moments at one norm and goes on with the batch's statistics, as training did."""
    assert (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm.running_mean is not None
        and norm.running_var is not None
    )
    x = args[0]
    dims = [dim for dim in range(x.dim()) if dim != 1]
    var, mean = torch.var_mean(x, dims, correction=0)
    found.append(Moments(name, (mean, var), (norm.running_mean, norm.running_var)))
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


def _knows(gan: Gan) -> Check:
    """Whether the discriminator's BatchNorm can have seen this generator's images in training."""
    name, discriminator = "discriminator's BatchNorm", gan.discriminator
    assert discriminator is not None
    if gan.generator.latent.prior == "image":
        return Check(name, "not applicable", _MADE_UP)
    z, labels = _draw(gan.generator, _SAMPLES)
    with torch.no_grad():
        images = gan.generator(z, labels)
    seen = norm_moments(discriminator.module, lambda: discriminator(images, labels))
    if not seen:
        return Check(name, "not applicable", "no BatchNorm keeps statistics: nothing in the file can tell")
    excess = excess_variance(seen)
    says = f"generated images vary more than was stored by {excess:.2g} (own discriminators up to {OWN_EXCESS}, foreign above {FOREIGN})"
    return Check(name, "ok" if excess <= FOREIGN else "doubtful", says, excess)


def described(checks: list[Check]) -> Iterator[str]:
    """One line for each check."""
    for check in checks:
        yield f"{check.verdict:<14} {check.name}: {check.says}"
