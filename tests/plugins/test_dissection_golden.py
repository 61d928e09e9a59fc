"""The reference's numbers: exact thresholds and integer overlaps at the image's resolution."""

import numpy as np
import pytest
import torch
from gandissect_plugins.dissection.counting.overlap import above_threshold, iou
from gandissect_plugins.dissection.pixels import PixelCounts
from safetensors.torch import load_file
from torch import nn

from gandissect.reducers import Tail, tail_length
from gandissect.tap import tap


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "analysis" / "dissection_fixed"
    if not folder.is_dir():
        pytest.skip("no reference numbers of dissection beside this repository")
    return folder


class ToyGenerator(nn.Module):
    """The generator of the reference: ConvTranspose2d, BatchNorm2d, ReLU four times, then RGB."""

    def __init__(self):
        super().__init__()
        sizes = (64, 192, 96, 48, 24)
        for stage in range(1, 5):
            step = (1, 0) if stage == 1 else (2, 1)
            self.add_module(f"conv{stage}", nn.ConvTranspose2d(*sizes[stage - 1 : stage + 1], 4, *step, bias=False))
            self.add_module(f"bn{stage}", nn.BatchNorm2d(sizes[stage]))
            self.add_module(f"layer{stage}", nn.ReLU())
        self.convout = nn.ConvTranspose2d(24, 3, 4, 2, 1)

    def forward(self, x):
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(getattr(self, f"bn{stage}")(getattr(self, f"conv{stage}")(x)))
        return torch.tanh(self.convout(x))


LAYERS = [f"layer{stage}" for stage in range(1, 5)]


@pytest.fixture(scope="module")
def features(golden):
    net = ToyGenerator()
    weights = load_file(golden / "generator.safetensors")
    if "convout.bias" not in weights:
        net.convout = nn.ConvTranspose2d(24, 3, 4, 2, 1, bias=False)
    net.load_state_dict(weights)
    latents = torch.from_numpy(np.load(golden / "latents.npz")["z"])
    parts = []
    with torch.no_grad(), tap(net.eval(), LAYERS) as acts:
        for start in range(0, 200, 50):
            net(latents[start : start + 50])
            parts.append(dict(acts))
    return {layer: torch.cat([part[layer] for part in parts]) for layer in LAYERS}


def threshold(values, q):
    n, _, height, width = values.shape
    tail = Tail(tail_length(n * height * width, q))
    for start in range(0, n, 32):
        tail.add(range(start, min(start + 32, n)), values[start : start + 32])
    return above_threshold(tail.result(), q, samples=n, cells=height * width)[0]


def label_masks(seg, label_count, category, categories, quirk=True):
    """bool [N, K, H, W] of labels 0..K−1, and bool [K, K] of those in one category; label 0 follows the reference's rule."""
    maps = torch.from_numpy(seg.astype(np.int64))
    masks = torch.stack([(maps == label).any(1) for label in range(label_count)], 1)
    number = {str(name): place for place, name in enumerate(categories)}
    groups = torch.tensor([number.get(str(name), -1) for name in category])
    groups[0] = 0 if quirk else -1  # the reference counts an unlabelled pixel as presence of the first category
    return masks, groups


def counted(values, masks, groups, level):
    counts = PixelCounts(level, groups[:, None] == groups)
    for start in range(0, len(values), 32):
        indices = range(start, min(start + 32, len(values)))
        counts.add(indices, values[start : start + 32], masks[start : start + 32])
    return counts


@pytest.mark.parametrize("layer", LAYERS)
def test_thresholds_are_the_exact_quantiles(golden, features, layer):
    expected = np.load(golden / "expected_exact_A.npz")[f"{layer}.level_linear"]
    assert np.allclose(threshold(features[layer], 0.005).numpy(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("labels", ["A", "B"])
def test_overlaps_are_those_of_the_exact_table(golden, features, layer, labels):
    stored, expected = np.load(golden / f"labelmaps_{labels}.npz"), np.load(golden / f"expected_exact_{labels}.npz")
    masks, groups = label_masks(
        stored["seg"], len(stored["label_names"]), stored["label_category"], stored["categories"]
    )
    level = torch.from_numpy(expected[f"{layer}.level_linear"])
    counts = counted(features[layer], masks, groups, level)
    found = counts.overlap.numpy().T[1:]
    exact = expected[f"{layer}.isect_at_linear"][1:]
    assert np.abs(found - exact).max() <= 2  # a pixel may flip where two builds of torch round differently
    in_category = iou(counts.overlap, counts.active_in, counts.area).numpy().T[1:]
    assert np.allclose(in_category, expected[f"{layer}.iou_at_linear"][1:], atol=1e-5)


@pytest.fixture(scope="module")
def edge_cases(golden):
    return np.load(golden / "edge_cases" / "inputs.npz"), np.load(golden / "edge_cases" / "expected_exact.npz")


def test_edge_cases_have_exact_thresholds_overlaps_and_finite_iou(edge_cases):
    stored, expected = edge_cases
    values, q = torch.from_numpy(stored["features"]), float(stored["q"])
    level = threshold(values, q)
    assert np.allclose(level.numpy(), expected["level_linear"], rtol=1e-6, atol=0)
    for rule in ("reference", "strict"):
        masks, groups = label_masks(
            stored["seg"], len(stored["label_names"]), stored["label_category"], stored["categories"],
            quirk=rule == "reference",
        )  # fmt: skip
        counts = counted(values, masks, groups, torch.from_numpy(expected["level_linear"]))
        decided = expected["linear.near_level_pixels"] == 0
        assert np.array_equal(counts.overlap.numpy().T[1:, decided], expected["linear.isect"][1:, decided])
        table = iou(counts.overlap, counts.active_in, counts.area).numpy().T
        assert np.isfinite(table).all() and (table[5] == 0).all()  # label 5 never occurs
        name = f"linear.iou_{rule}_presence"
        assert np.allclose(table[1:, decided], expected[name][1:, decided], atol=1e-12)


def test_the_planted_network_gets_the_labels_of_the_exact_table(golden):
    folder = golden / "planted"
    expected, stored = np.load(folder / "expected_exact_q0.02.npz"), np.load(folder / "labelmaps.npz")
    net = nn.Sequential(nn.ConvTranspose2d(16, 16, 8), nn.ReLU())
    weights = load_file(folder / "generator.safetensors")
    net[0].load_state_dict({name.removeprefix("conv1."): w for name, w in weights.items() if name.startswith("conv1.")})
    with torch.no_grad():
        values = net(torch.from_numpy(np.load(folder / "latents.npz")["z"]))
    masks, groups = label_masks(
        stored["seg"], len(stored["label_names"]), stored["label_category"], stored["categories"]
    )
    counts = counted(values, masks, groups, threshold(values, 0.02))
    table = iou(counts.overlap, counts.active_in, counts.area).numpy().T
    assert np.array_equal(table[1:].argmax(0), expected["layer1.iou_at_linear"][1:].argmax(0))
    assert np.allclose(table[1:], expected["layer1.iou_at_linear"][1:], atol=1e-4)
