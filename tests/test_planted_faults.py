"""From a planted fault to the first screen: every analyzer runs, the fault is said, and a healthy generator is left in peace."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from planted_faults import CLASSES, LATENT, Kinds, Labelled, Likelihood, Memoriser, gan_of
from torch import Tensor, nn

import gandissect
from gandissect.report import Report
from gandissect.testing.tiny import CornerDiscriminator

SEEDS = range(20)
few_seeds = pytest.mark.parametrize("seed", range(3))
JUDGES = (
    "health", "overview", "conditions", "discriminator", "distribution", "features", "geometry", "inversion", "translation",
)  # fmt: skip
"""Analyzers whose findings say that something is wrong; the others describe."""

pytestmark = pytest.mark.slow


def generator(seed: int, *, idle: bool = False, kinds: int = 8) -> Labelled:
    torch.manual_seed(seed)
    return Labelled(Kinds(seed, kinds=kinds), idle=idle)


def drawn(net: nn.Module, seed: int, count: int = 320) -> Tensor:
    """Images of ``net`` from latents that no session draws, all classes alike."""
    z = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(seed + 5000))
    with torch.no_grad():
        images: Tensor = net(z, torch.arange(count) % CLASSES)
    return images


def analyzed(net: nn.Module, seed: int, real: Tensor, discriminator: nn.Module | None = None) -> Report:
    """What a user gets: all analyzers, with a discriminator that knows the kinds where none is given."""
    gan = gan_of(net, discriminator or Likelihood(Kinds(seed)), classes=CLASSES)
    report = gandissect.analyze(gan, n=200, seed=seed, data=real)
    assert report.failed == ()
    return report


def headlines(report: Report) -> list[str]:
    return [finding.text for finding, _ in report.findings()]


def alarms(report: Report) -> list[str]:
    """Everything that is said to be wrong, on the first screen or below."""
    return [f.text for section in report.sections if section.analyzer in JUDGES for f in section.findings]


def once(words: str, texts: Sequence[str]) -> bool:
    return sum(words in text for text in texts) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_generator_raises_no_alarm(seed: int) -> None:
    net = generator(seed)
    assert alarms(analyzed(net, seed, drawn(net, seed))) == []


@few_seeds
def test_a_generator_of_two_of_eight_modes_is_said_to_miss_modes(seed: int) -> None:
    report = analyzed(generator(seed, kinds=2), seed, drawn(generator(seed), seed))
    assert once("misses modes", headlines(report))


@few_seeds
def test_a_generator_that_returns_training_images_is_said_to_copy(seed: int) -> None:
    real = drawn(generator(seed), seed)
    report = analyzed(Labelled(Memoriser(real)), seed, real)
    assert once("copies training images", headlines(report))


@few_seeds
def test_a_dead_latent_coordinate_is_named_once(seed: int) -> None:
    net = generator(seed)
    with torch.no_grad():
        net.inner.style.weight[:, 5] = 0
    report = analyzed(net, seed, drawn(net, seed))
    assert once("z[8]", headlines(report))
    assert len(alarms(report)) == 1


@few_seeds
def test_a_discriminator_that_looks_at_one_corner_only_is_said_to(seed: int) -> None:
    net = generator(seed)
    report = analyzed(net, seed, drawn(net, seed), CornerDiscriminator(3, 16))
    assert once("looks at one part of the image only** (upper left)", headlines(report))
    assert len(alarms(report)) == 1


@few_seeds
def test_a_condition_that_does_nothing_is_said_once(seed: int) -> None:
    net = generator(seed, idle=True)
    report = analyzed(net, seed, drawn(net, seed))
    (text,) = alarms(report)
    assert "The label does nothing" in text
    assert text in headlines(report)
