"""Directions in w: SeFa on the layers that turn w into styles, and principal components of w itself.

sefa_in_w(session, 5).vectors                            # float32 [5, W], unit rows
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from gandissect.errors import NoSuchCapability
from gandissect.session import Session
from gandissect.spaces import codes, decoded
from gandissect_plugins.features.embedding import principal_components

from .basis import Directions, factorised, stability_of


def style_weights(session: Session) -> list[Tensor]:
    """Weights [C, W] of the linear layers that w goes into, in the order in which they run.

    Raises:
        NoSuchCapability: the generator has no space w, or no linear layer takes as many numbers as it has.
    """
    generator = session.gan.generator
    if not any(space.name == "w" and len(space.shape) == 1 for space in generator.inner):
        raise NoSuchCapability("this generator has no space w")
    width = generator.space("w").shape[0]
    found: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, args: tuple[object, ...], _output: object) -> None:
        weight = getattr(module, "weight", None)
        takes = args and isinstance(args[0], Tensor) and args[0].shape[-1] == width
        if takes and isinstance(weight, Tensor) and weight.dim() == 2 and weight.shape[1] == width:
            found.setdefault(module, weight.detach().float().cpu())

    with ExitStack() as hooks:
        latents, labels = session.latents(1), session.labels(range(1))
        point = codes(session, "w", latents, labels)
        for module in generator.module.modules():
            hooks.callback(module.register_forward_hook(note).remove)
        decoded(session, "w", point, labels)
    if not found:
        raise NoSuchCapability(f"no linear layer takes the {width} numbers of w")
    return list(found.values())


def sefa_in_w(session: Session, count: int, *, normalise: bool = True) -> Directions:
    """Eigenvectors of AᵀA for the stacked weights of all style layers; ``normalise`` as in :func:`factorised`.

    References:
        Shen & Zhou 2021, Closed-form factorization of latent semantics in GANs, sec. 3.3.
    """
    weights = style_weights(session)
    rows, values = factorised(weights, normalise=normalise)
    title, how = ("SeFa in w", "outputs of length 1") if normalise else ("SeFa in w, unscaled", "outputs as they are")
    names = tuple(f"{title} {i + 1}" for i in range(min(count, len(rows))))
    method = f"{title}: {len(weights)} style layers, {how}"
    none = torch.zeros(0).double().numpy()
    return Directions(method, names, rows[:count].astype("float32"), values[:count], "eigenvalue", none)


def components_of_w(session: Session, count: int, n: int) -> Directions:
    """Principal components of w over the first ``n`` samples, which GANSpace takes where there is such a space.

    References:
        Härkönen, Hertzmann, Lehtinen, Paris 2020, GANSpace, sec. 2.1.
    """
    points = codes(session, "w", session.latents(n), session.labels(range(n))).numpy()
    found = principal_components(points, count)
    halves = [principal_components(part, count).vectors for part in (points[: n // 2], points[n // 2 :])]
    names = tuple(f"GANSpace in w {i + 1}" for i in range(len(found.vectors)))
    stability = stability_of(found.vectors, halves)
    vectors = found.vectors.astype("float32")
    return Directions("GANSpace in w", names, vectors, found.explained, "share of variance", stability)
