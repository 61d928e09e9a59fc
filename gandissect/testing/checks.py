"""Checks that a plugin keeps its promises, for its author's tests.

def test_mean_colour():
    check_analyzer(MeanColour)
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from gandissect.adapter import Adapter, Hints
from gandissect.analyzer import Analyzer
from gandissect.blocks import Section
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.options import describe_options
from gandissect.session import Session
from gandissect.testing.tiny import Kind, tiny_gan

KINDS: tuple[Kind, ...] = ("planted", "random", "vector", "grey")


def _state(module: nn.Module) -> tuple[object, ...]:
    """Everything of a module that an analysis must leave alone."""
    return (
        [
            (name, part.training, len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
            for name, part in module.named_modules()
        ],
        [(name, p.requires_grad, p.grad is None, p.detach().clone()) for name, p in module.named_parameters()],
        [(name, b.detach().clone()) for name, b in module.named_buffers()],
    )


def _same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def _session(kind: Kind, batch_size: int) -> Session:
    bright = CallableSegmenter(lambda images: images.mean(1, keepdim=True) > 0, ["bright"])
    return Session(tiny_gan(kind), vocabulary=Vocabulary([bright]), n=48, batch_size=batch_size)


def check_analyzer(analyzer: type[Analyzer], kinds: tuple[Kind, ...] = KINDS) -> None:
    """Run an analyzer on tiny GANs and assert what every analyzer promises.

    Its name is legal; its options have defaults and documentation; wherever its needs are met it runs; the model, its gradients and the
    global random state are untouched; it gives the same sections for batch sizes 1, 7 and 64; every section is JSON.

    Raises:
        AssertionError: which promise was broken, and on which GAN.
    """
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", analyzer.name), f"{analyzer.name!r} is not kebab-case"
    for name, _, _, doc in describe_options(analyzer.Options):
        assert doc, f"option {name} of {analyzer.name} has no documentation; declare it with option(default, doc)"
    for kind in kinds:
        results = []
        for batch_size in (1, 7, 64):
            session = _session(kind, batch_size)
            instance = analyzer()
            if instance.needs.missing(session):
                continue
            before = _state(session.gan.generator.module)
            random_before = torch.get_rng_state()
            session.prepare(instance.wants(session))
            with session.borrowed():
                sections = list(instance.run(session))
            assert _same(before, _state(session.gan.generator.module)), (
                f"{analyzer.name} changed the generator ({kind})"
            )
            assert torch.equal(random_before, torch.get_rng_state()), f"{analyzer.name} moved the global random state"
            assert all(isinstance(section, Section) for section in sections), f"{analyzer.name} yields non-sections"
            results.append([section.to_json() for section in sections])
        assert all(result == results[0] for result in results), f"{analyzer.name} depends on the batch size ({kind})"


def check_adapter(adapter: type[Adapter], path: str | Path, hints: Hints | None = None) -> None:
    """Open ``path`` with an adapter and assert that what it gives runs and makes finite images.

    Raises:
        AssertionError: what was not so.
    """
    from gandissect.files.peek import peek
    from gandissect.gan import Opening
    from gandissect.probing.building import build_gan

    seen = peek(path)
    instance = adapter()
    match = instance.match(seen)
    assert match is not None and 0 < match.score <= 1, f"{adapter.name} does not match {path}"
    gan = build_gan(
        instance.open(seen, hints or Hints()), name=Path(path).name, opening=Opening(adapter.name, match.why)
    )
    images = gan.generator(torch.zeros(2, gan.generator.latent.size))
    assert images.shape[1:] == gan.generator.image_shape and torch.isfinite(images).all()
