"""Soft scores say what the hard masks say, have a finite slope everywhere, and lie between 0 and 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gandissect_plugins.vocabularies import Clusters, Colours, Demo, Edges, Light, Position, Texture
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Segmenter, Vocabulary
from gandissect.demo import demo_generator
from gandissect.errors import UsageError
from gandissect.targets import SoftArea, concept_target, has_soft_score
from gandissect.vocabulary import build_segmenter

SOFT = ("colours", "light", "edges", "texture", "clusters", "demo")


@pytest.fixture(scope="module")
def images() -> Tensor:
    with torch.no_grad():
        return demo_generator()(torch.randn(16, 64, generator=torch.Generator().manual_seed(0)))


def segmenter(name: str, images: Tensor) -> Segmenter:
    made: dict[str, Segmenter] = {"colours": Colours(), "light": Light(), "edges": Edges(), "texture": Texture(),
                                  "clusters": Clusters().fitted(images), "demo": Demo()}  # fmt: skip
    return made[name]


def inner(masks: Tensor) -> Tensor:
    """Pixels whose eight neighbours are on the same side of the mask: bool [N, K, H, W]."""
    value = masks.float()
    return F.max_pool2d(value, 3, 1, 1) == -F.max_pool2d(-value, 3, 1, 1)


@pytest.mark.parametrize("name", SOFT)
def test_a_soft_score_above_a_half_is_the_mask_away_from_borders(name: str, images: Tensor) -> None:
    source = segmenter(name, images)
    masks, soft = source.segment(images, range(len(images))), source.soft(images)
    assert soft is not None and soft.shape == masks.shape and soft.dtype == torch.float32
    assert bool(((soft >= 0) & (soft <= 1)).all())
    same = (soft > 0.5) == masks
    away = inner(masks)
    shares = [float(same[:, k][away[:, k]].float().mean()) for k in range(masks.shape[1])]
    assert min(shares) > 0.99, dict(zip([c.name for c in source.concepts], shares, strict=True))
    assert bool(masks.any(3).any(2).any(0).all()), "a concept that is nowhere tests nothing"


GREYS = {
    "grey": torch.zeros(2, 3, 16, 16),
    "black": -torch.ones(1, 3, 16, 16),
    "white": torch.ones(1, 3, 16, 16),
    "ramp": torch.linspace(-1, 1, 32).expand(1, 3, 32, 32).contiguous(),
    "one channel": torch.linspace(-1, 1, 28).expand(2, 1, 28, 28).contiguous(),
}


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("kind", [*GREYS, "samples"])
def test_the_slope_is_finite_everywhere(name: str, kind: str, images: Tensor) -> None:
    given = (images if kind == "samples" else GREYS[kind]).clone().requires_grad_()
    soft = segmenter(name, images).soft(given)
    if soft is None:
        assert (name, kind) == ("demo", "one channel")
        return
    (slope,) = torch.autograd.grad((soft * torch.arange(soft.shape[1])[:, None, None]).sum(), given)
    assert slope.isfinite().all()
    assert kind != "samples" or bool(slope.any())


def test_a_step_up_the_slope_makes_more_of_a_colour(images: Tensor) -> None:
    target = concept_target(Vocabulary([Position(), Colours()]), "green", images[:2])
    assert isinstance(target, SoftArea)
    given = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(target(given).sum(), given)
    with torch.no_grad():
        assert (target(images + 0.05 * slope.sign()) > target(images)).all()


def test_one_concept_is_asked_for_without_the_other_segmenters(images: Tensor) -> None:
    class Slow(Position):
        def soft(self, images: Tensor) -> Tensor:
            raise AssertionError("not asked for")

    vocabulary = Vocabulary([Slow(), Colours()])
    index = [concept.name for concept in vocabulary.concepts].index("red")
    assert has_soft_score(vocabulary, index, images[:1]) and vocabulary.owner(index)[1] == 8
    with pytest.raises(IndexError):
        vocabulary.owner(len(vocabulary.concepts))


def test_a_vocabulary_has_nan_where_a_segmenter_has_no_score(images: Tensor) -> None:
    soft = Vocabulary([Position(), Texture()]).soft(images)
    assert soft is not None and soft[:, :9].isnan().all() and soft[:, 9:].isfinite().all()


def test_probabilities_of_a_function_are_its_soft_score(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def red(images):\n    return (images[:, 0] + 1) / 2\n\nred.soft = True\n\n"
                    "def logit(images):\n    return images[:, 0]\n\ndef wrong(images):\n    return images[0]\n")  # fmt: skip
    red, logit, wrong = (build_segmenter(f"{file}:{name}") for name in ("red", "logit", "wrong"))
    images = torch.tensor([-0.5, 0.5]).reshape(1, 1, 1, 2).expand(2, 3, 4, 2)
    soft = red.soft(images)
    assert soft is not None and torch.equal(soft[0, 0, 0], torch.tensor([0.25, 0.75]))
    assert torch.equal(red.segment(images, [0, 1]), logit.segment(images, [0, 1])) and logit.soft(images) is None
    with pytest.raises(UsageError, match=r"returned shape .* expected"):
        wrong.segment(images, [0, 1])
