"""The reference's numbers: pixels left after ablation, and ACE's loss, gradient and weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.dissection.causal import Baseline, Examples, ablate, ace_loss, mean_present_level, optimise
from gandissect_plugins.dissection.causal.ace import soft_at
from gandissect_plugins.dissection.causal.edits import Blend
from gandissect_plugins.dissection.causal.resampling import Resampling
from numpy.lib.npyio import NpzFile
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

import gandissect
from gandissect.concepts import Concept, Segmenter, Vocabulary, concept_areas
from gandissect.reducers import CrossSpec
from gandissect.session import Session
from gandissect.tap import tap

NAMES = ("black", "red", "green", "blue", "yellow", "magenta", "cyan", "white")
CORNERS = torch.tensor(
    [[-1, -1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1], [1, 1, 1.0]]
)
TOY = "dissection_fixed/generator.ts"
CASES = [
    ("planted_layer1", "ace/planted.ts"),
    pytest.param("toydcgan_layer3", TOY, marks=pytest.mark.slow),
    pytest.param("toydcgan_layer4", TOY, marks=pytest.mark.slow),
]


class SignColours(Segmenter):
    """The reference's labels: which corner of the RGB cube a 2×2 mean is nearest to."""

    name = "signs"

    @property
    def concepts(self) -> Sequence[Concept]:
        return [Concept(name, "colour") for name in NAMES]

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        signs = F.avg_pool2d(images, 2)[:, None] > 0
        return self._whole((signs == (CORNERS > 0)[None, :, :, None, None]).all(2))

    def soft(self, images: Tensor) -> Tensor:
        distance = (F.avg_pool2d(images, 2)[:, None] - CORNERS[None, :, :, None, None]).square().sum(2)
        return self._whole(torch.softmax(-4 * distance, 1))

    @staticmethod
    def _whole(planes: Tensor) -> Tensor:
        return planes.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    folder = shared / "golden" / "analysis"
    if not (folder / "ace").is_dir():
        pytest.skip("no reference numbers of causal ablation beside this repository")
    return folder


def opened(path: Path) -> Session:
    return Session(gandissect.open(path), vocabulary=Vocabulary([SignColours()]))


def given(session: Session, z: Tensor) -> Baseline:
    """Samples made from the reference's latents."""
    latents = z.flatten(1)
    images = session.generate(latents)
    areas = concept_areas(session.segment(images))
    return Baseline(tuple(range(len(z))), latents, images, areas, None, Resampling.of(len(z), session.rng("test")))


def counted(areas: Tensor, pixels: int) -> Tensor:
    """Label pixels of all samples: int64 [8]."""
    return (areas.double() * pixels).round().long().sum(0)


@pytest.mark.parametrize(("case", "archive"), CASES)
def test_pixels_left_after_zeroing_units_are_exactly_the_references(golden: Path, case: str, archive: str) -> None:
    expected = np.load(golden / "ace" / f"expected_{case}.npz")
    session, layer, pixels = opened(golden / archive), case.split("_")[1], int(expected["pixels_per_image"])
    start = given(session, torch.from_numpy(expected["z"]))
    assert counted(start.areas, pixels).tolist() == expected["baseline_counts"][1:].tolist()
    for unit in expected["units"].tolist():
        after = ablate(session, layer, [unit], samples=start).after
        assert counted(after, pixels).tolist() == expected["counts_after_zeroing_unit"][unit, 1:].tolist(), unit
    for concept in ("red", "green", "blue"):
        if f"{concept}.full_ablation_exact_pixels" not in expected:
            continue
        order, exact = expected[f"{concept}.order"], expected[f"{concept}.full_ablation_exact_pixels"]
        for size, count in enumerate(exact.tolist()):
            after = ablate(session, layer, order[:size].tolist(), samples=start).after
            assert int(counted(after, pixels)[NAMES.index(concept)]) == count, (concept, size)


@pytest.mark.parametrize("concept", ["red", "green", "blue"])
def test_ablation_where_the_concept_is_leaves_what_the_reference_leaves(golden: Path, concept: str) -> None:
    expected = np.load(golden / "ace" / "expected_planted_layer1.npz")
    session = opened(golden / "ace" / "planted.ts")
    z, k = torch.from_numpy(expected["z"]), NAMES.index(concept)
    masks = session.segment(session.generate(z.flatten(1)))[:, k].float()
    there = (F.adaptive_avg_pool2d(masks, (8, 8)) > 0).nonzero()
    cells = torch.zeros(len(there), 8, 8)
    cells[torch.arange(len(there)), there[:, 1], there[:, 2]] = 1.0
    start = given(session, z[there[:, 0]])
    order = expected[f"{concept}.order"].tolist()
    for size, total in enumerate(expected[f"{concept}.local_ablation_reference_sum"].tolist()):
        made = ablate(session, "layer1", order[:size], samples=start, where=cells, keep_images=len(there))
        left = F.adaptive_avg_pool2d(session.segment(made.images_after)[:, k].float(), (8, 8))
        assert float((left * cells).sum()) == total, size


@pytest.fixture(scope="module")
def learnt(golden: Path) -> tuple[Session, NpzFile]:
    return opened(golden / "ace" / "planted.ts"), np.load(golden / "ace" / "ace_optimize_planted.npz")


def pairs(expected: NpzFile, concept: str, kind: str, seed: int) -> Examples:
    """The reference's samples and cells."""
    z = torch.from_numpy(np.random.RandomState(seed).standard_normal((1000, 16)).astype(np.float32))
    indices = expected[f"{concept}.{kind}_indices"]
    name = "object_present_location" if kind == "present" else "candidate_location"
    cells = torch.zeros(len(indices), 64)
    cells[torch.arange(len(indices)), torch.from_numpy(expected[f"{concept}.{name}"])] = 1.0
    return Examples(tuple(indices.tolist()), z[torch.from_numpy(indices)], cells.reshape(-1, 8, 8))


@pytest.mark.parametrize("concept", ["red", "green"])
def test_the_loss_of_ace_and_its_gradient_are_the_references(learnt: tuple[Session, NpzFile], concept: str) -> None:
    session, expected = learnt
    present, absent = (pairs(expected, concept, *of).rows(range(20)) for of in (("present", 10), ("candidate", 11)))
    level = torch.from_numpy(expected[f"{concept}.weighted_mean_present_feature"])
    alpha = torch.from_numpy(expected[f"{concept}.alpha_init"]).requires_grad_()
    with session.borrowed():
        ablated = soft_at(session, "layer1", concept, Blend(alpha[None], None, present.cells), present)
        inserted = Blend(alpha[None], level, absent.cells)
        slipped = ablated - soft_at(
            session, "layer1", concept, inserted, absent, present.cells
        )  # as the reference reads
        (slope,) = torch.autograd.grad(slipped, alpha, retain_graph=True)
        ours = ace_loss(session, "layer1", concept, alpha, level, present, absent)
        there = soft_at(session, "layer1", concept, Blend(alpha[None], level, absent.cells), absent)
    assert float(slipped.detach()) == pytest.approx(float(expected[f"{concept}.loss_at_init_first20"]), abs=1e-5)
    np.testing.assert_allclose(slope.numpy(), expected[f"{concept}.grad_at_init_first20"], atol=1e-5)
    assert float(ours.detach()) == pytest.approx(float((ablated - there).detach()), abs=1e-5)
    assert float(ours.detach()) < float(slipped.detach()) - 1, "what was inserted is read where it was inserted"


@pytest.mark.parametrize("concept", ["red", "green"])
def test_the_level_of_insertion_is_the_mean_where_the_concept_is(learnt: tuple[Session, NpzFile], concept: str) -> None:
    session, expected = learnt
    present = pairs(expected, concept, "present", 10)
    with session.borrowed(), torch.no_grad(), tap(session.gan.generator.module, ["layer1"]) as acts:
        session.gan.generator(present.latents)
    cross = CrossSpec()()
    cross.add(range(len(present)), acts["layer1"], present.cells[:, None])
    level = mean_present_level(cross.result(), 0)
    np.testing.assert_allclose(level.numpy(), expected[f"{concept}.mean_present_feature"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("concept", ["red", "green"])
def test_ace_ends_where_the_reference_ends(learnt: tuple[Session, NpzFile], concept: str) -> None:
    session, expected = learnt
    start = torch.from_numpy(expected[f"{concept}.alpha_init"])
    level = torch.from_numpy(expected[f"{concept}.weighted_mean_present_feature"])
    present, absent = pairs(expected, concept, "present", 10), pairs(expected, concept, "candidate", 11)
    alpha = optimise(session, "layer1", concept, start, level, present, absent, steps=100, batch=20)
    reference = expected[f"{concept}.alpha_final"]
    causal = {"red": [0, 1, 2, 3], "green": [4, 5]}[concept]
    assert set(alpha.argsort(descending=True)[: len(causal)].tolist()) == set(causal)
    np.testing.assert_allclose(alpha[causal].numpy(), reference[causal], atol=0.25)
    assert float(spearmanr(alpha.numpy(), reference).statistic) > 0.6
    copy = {"red": 10, "green": 11}[concept]
    assert float(alpha[copy]) < float(start[copy]) - 0.2, "a unit that only follows is pushed down by the penalty"
