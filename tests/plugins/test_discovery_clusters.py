"""Clusterings that come back, pairs beyond position, words with their effect, and outlines."""

import numpy as np
import pytest
import torch
from gandissect_plugins.discovery.clustering import (
    Split,
    agreement,
    cluster,
    euclidean_centres,
    matched,
    overlaps,
    spherical,
    spherical_centres,
)
from gandissect_plugins.discovery.naming import Surfaces, cohens_d
from gandissect_plugins.discovery.sections import outline
from torch import Tensor


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def blobs(k: int, n: int = 60, cells: int = 36) -> tuple[Tensor, Tensor]:
    """Points [n, cells, 8] around k directions and which each belongs to."""
    stream = torch.Generator().manual_seed(k)
    centres = 3 * torch.nn.functional.normalize(torch.randn(k, 8, generator=stream), dim=1)
    labels = torch.randint(0, k, (n, cells), generator=stream)
    return centres[labels] + 0.2 * torch.randn(n, cells, 8, generator=stream), labels


@pytest.mark.parametrize("method", [spherical_centres, euclidean_centres])
@pytest.mark.parametrize("k", [3, 5])
def test_as_many_clusters_are_found_as_there_are(method, k: int) -> None:
    points, labels = blobs(k)
    prepared = spherical(points) if method is spherical_centres else points.double()
    found = cluster(prepared, Split.of(60, rng()), method, range(2, 8), rng())
    assert found.k == k and found.agreement > 0.95 and abs(found.null) < 0.05
    assert agreement(found.labels, labels) > 0.95 and float(found.stability.min()) > 0.95


def test_noise_has_no_cluster_that_comes_back() -> None:
    noise = torch.randn(60, 36, 24, generator=torch.Generator().manual_seed(0))
    found = cluster(spherical(noise), Split.of(60, rng()), spherical_centres, range(2, 6), rng())
    assert found.agreement < 0.3 and float(found.stability.max()) < 0.6


def test_the_three_parts_of_the_samples_are_disjoint_and_complete() -> None:
    split = Split.of(50, rng())
    assert torch.equal(torch.cat([split.first, split.second, split.held_out]).sort().values, torch.arange(50))
    assert torch.equal(torch.cat([split.first, split.unseen]).sort().values, torch.arange(50))


def test_the_same_clusters_by_other_numbers_are_paired() -> None:
    labels = torch.randint(0, 4, (40, 25), generator=torch.Generator().manual_seed(1))
    names = torch.tensor([2, 0, 3, 1])
    match = matched(labels, names[labels], rng(), (4, 4))
    assert torch.equal(match.partner, names) and torch.allclose(match.iou, torch.ones(4).double())
    assert float(match.null.max()) < 0.3 and float(match.table_p.diagonal().min()) > 0
    assert float(match.table_p[torch.arange(4), names].max()) < 0.002


def test_regions_that_only_share_their_place_are_no_pair() -> None:
    place = (torch.arange(25) < 10).long().expand(40, 25)
    iou, null = overlaps(place[:, None].float(), place[:, None].float(), rng())
    assert torch.allclose(iou, torch.ones(1, 1).double()) and torch.allclose(null, torch.ones_like(null))
    assert matched(place, place, rng(), (2, 2)).partner.tolist() == [-1, -1]


def test_shuffled_overlaps_are_those_of_samples_shifted_by_hand() -> None:
    stream = torch.Generator().manual_seed(2)
    a, b = (torch.rand(5, 2, 9, generator=stream).round() for _ in range(2))
    _, null = overlaps(a, b, rng(), draws=4)
    order = torch.from_numpy(rng().permutation(5))
    moved = b[order].roll(-1, 0)
    both = torch.einsum("nac,nbc->ab", a[order], moved)
    expected = both / (a.sum((0, 2))[:, None] + b.sum((0, 2)) - both)
    torch.testing.assert_close(null[0], expected.double())


def test_cohens_d_is_the_difference_in_standard_deviations() -> None:
    stream = torch.Generator().manual_seed(3)
    inside, outside = 2 + torch.randn(4000, generator=stream), torch.randn(4000, generator=stream)
    assert cohens_d(inside, outside) == pytest.approx(2.0, abs=0.1)
    assert cohens_d(torch.ones(5), torch.ones(5)) == 0.0


def test_a_noisy_green_lower_half_is_called_green_textured_and_at_the_bottom() -> None:
    noise = 0.5 * torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(4))
    images = torch.tensor([-0.2, -0.2, 0.6])[None, :, None, None].repeat(6, 1, 32, 32)
    images[:, :, 16:] = torch.tensor([-0.6, 0.3, -0.6])[:, None, None] + 0.6 * noise[:, :, 16:]
    lower = torch.zeros(6, 8, 8, dtype=torch.bool)
    lower[:, 4:] = True
    look = Surfaces(images.clamp(-1, 1), (8, 8)).describe(lower.flatten(1))
    assert {"green", "textured", "at the bottom"} <= set(look.words)
    assert dict(look.effects)["colour"].startswith("green ") and dict(look.effects)["height (down)"].startswith("d = +")


def test_a_region_is_outlined_and_the_rest_dimmed_on_an_enlarged_picture() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:20, 10:20] = True
    drawn = outline(torch.zeros(1, 3, 64, 64), mask)
    marked = (drawn == (255, 0, 200)).all(3)[0]
    assert drawn.shape == (1, 128, 128, 3) and marked.sum() == 4 * 20 - 4 and marked[20, 20] and not marked[30, 30]
    assert drawn[0, 30, 30].tolist() == [128] * 3 and drawn[0, 50, 50].tolist() == [64] * 3
