"""What is told of a training is what was planted in it: collapses, onsets, units that settle, losses."""

from __future__ import annotations

import gc
import struct
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.series import collapses, diversity, kept_units, onset
from gandissect_plugins.series.balance import told_apart
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Networks
from gandissect.blocks import Line
from gandissect.comparer import Source
from gandissect.comparing.compare import compare
from gandissect.comparing.event_files import masked_crc, read_events
from gandissect.comparing.training_log import read_log, role_of
from gandissect.concepts import CallableSegmenter
from gandissect.errors import UsageError
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.report import Report
from gandissect.testing import CornerDiscriminator

NO_CONCEPTS = ("none",)
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]


class Painter(nn.Module):
    """z [N, 16] to [N, 3, 32, 32]: a picture that depends on z by ``reach``, with a square of pure red of ``side`` cells."""

    def __init__(self, reach: float = 1.0, side: int = 0, seed: int = 0) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(seed)
        self.mix = nn.Linear(16, 8)
        self.act = nn.ReLU()
        self.paint = nn.Linear(8, 3 * 8 * 8)
        with torch.no_grad():
            self.mix.weight.copy_(torch.randn(8, 16, generator=torch.Generator().manual_seed(9)))
            self.mix.weight += 0.05 * torch.randn(8, 16, generator=source)
            self.paint.weight.copy_(0.1 * reach * torch.randn(192, 8, generator=torch.Generator().manual_seed(8)))
            self.paint.bias.copy_(0.01 * torch.randn(192, generator=source))
        self.side = side
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        image = torch.tanh(self.paint(self.act(self.mix(z)))).view(-1, 3, 8, 8)
        image = image.repeat_interleave(4, 2).repeat_interleave(4, 3) * 0.4
        if self.side:
            image[:, :, : self.side, : self.side] = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
        return image


def series(nets: Sequence[nn.Module], **given: object) -> Report:
    def opened(net: nn.Module) -> Callable[[], object]:
        networks = Networks(net, CornerDiscriminator(), LatentSpace("z", (16,)))
        return lambda: build_gan(networks, name="g", opening=Opening("testing", "made"))

    sources = [Source(f"epoch_{i}", opened(net), float(i)) for i, net in enumerate(nets)]  # type: ignore[arg-type]
    settings: dict[str, object] = {"n": 64, "concepts": NO_CONCEPTS, "axis": "epoch", "strict": True, **given}
    return compare(sources, of="series", **settings)  # type: ignore[arg-type]


def red(images: Tensor) -> Tensor:
    return (images[:, :1] > 0.9) & (images[:, 1:].amax(1, keepdim=True) < -0.9)


def pictures(reach: float, seed: int) -> np.ndarray:
    return reach * np.random.default_rng(seed).standard_normal((60, 30))


def test_a_planted_collapse_is_dated_exactly() -> None:
    nets = [Painter(reach=0.15 if epoch >= 5 else 1.0, seed=epoch) for epoch in range(8)]
    found = series(nets, only=["diversity"]).section("diversity")[0].findings
    assert len(found) == 1
    assert found[0].text.startswith("**Between epoch 4 and 5 samples collapse**")
    assert found[0].text.endswith("It does not come back.")


def test_a_collapse_that_is_overcome_says_when() -> None:
    reaches = [1, 1, 1, 0.2, 0.2, 1, 1, 0.1]
    found = collapses([diversity(pictures(r, i), 1.0, np.random.default_rng(i)) for i, r in enumerate(reaches)])
    assert [(one.place, one.again) for one in found] == [(3, 5), (7, None)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_steady_series_raises_no_alarm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wobble = 1 + 0.05 * rng.standard_normal(12)
    assert collapses([diversity(pictures(r, 100 * seed + i), 1.0, rng) for i, r in enumerate(wobble)]) == []


def test_a_slow_loss_of_diversity_is_no_collapse() -> None:
    rng = np.random.default_rng(0)
    reaches = 0.93 ** np.arange(15)
    assert collapses([diversity(pictures(r, i), 1.0, rng) for i, r in enumerate(reaches)]) == []


def test_a_concept_that_appears_is_dated_and_named() -> None:
    nets = [Painter(side=0 if epoch < 3 else 8, seed=epoch) for epoch in range(6)]
    section = series(nets, only=["onsets"], concepts=[CallableSegmenter(red, ["red"])]).section("onsets")[0]
    assert [finding.text[:31] for finding in section.findings] == ["**“red” appears at epoch 3**: 0"]


def test_a_concept_that_goes_away_is_dated_and_named() -> None:
    nets = [Painter(side=8 if epoch < 4 else 0, seed=epoch) for epoch in range(6)]
    section = series(nets, only=["onsets"], concepts=[CallableSegmenter(red, ["red"])]).section("onsets")[0]
    assert [finding.text[:33] for finding in section.findings] == ["**“red” disappears at epoch 4**: "]
    assert "0 of 1 concepts appear" in section.summary


def test_an_onset_needs_an_absence_before_and_a_presence_to_the_end() -> None:
    low, high = np.array([0, 0, 0.1, 0, 0.2, 0.2]), np.array([1e-4, 0.1, 0.2, 0.1, 0.3, 0.3])
    assert onset(low, high) == 4
    assert onset(low[::-1], high[::-1]) is None
    assert onset(low + 0.1, high + 0.1) is None


def test_units_settle_where_they_are_what_they_are_at_the_end() -> None:
    rng = np.random.default_rng(0)
    last, turned = rng.standard_normal((100, 20)), rng.standard_normal((100, 20))
    early = np.concatenate([last[:, :7] + 0.1 * rng.standard_normal((100, 7)), rng.standard_normal((100, 13))], 1)
    assert kept_units(early, last, turned).passed.tolist() == [True] * 7 + [False] * 13


def test_a_steady_training_makes_no_finding_and_skips_nothing_but_the_losses() -> None:
    report = series([Painter(seed=epoch) for epoch in range(4)], concepts=("colours",))
    assert [finding.text for one in report.sections for finding in one.findings] == []
    assert [one.analyzer for one in report.sections if one.status == "skipped"] == ["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_steady_trainings_make_no_finding_beside_real_images(seed: int) -> None:
    with torch.no_grad():
        real = Painter(seed=900 + seed)(torch.randn(100, 16, generator=torch.Generator().manual_seed(seed)))
    nets = [Painter(seed=100 * seed + epoch) for epoch in range(6)]
    report = series(nets, concepts=("colours",), data=real, seed=seed, n=100)
    assert [finding.text for one in report.sections for finding in one.findings] == []


@pytest.mark.slow
def test_a_strangers_training_goes_from_noise_to_faces(shared: Path) -> None:
    names = [f"celeba32-began-massi{part}/generator_began_celeba{part}.pth" for part in ("_0", "_700", "")]
    sources = [
        Source(name, partial(gandissect.open, shared / "checkpoints" / name), float(place))
        for place, name in enumerate(names)
    ]
    report = compare(sources, of="series", n=100, concepts=("colours",), strict=True)
    towards = next(block for block in report.section("progress")[0].blocks if isinstance(block, Line))
    start, middle, end = towards.series[0].y
    assert start > 0.05 > middle
    assert end == 0
    assert report.section("diversity")[0].findings == ()
    assert any("appear" in finding.text for finding in report.section("onsets")[0].findings)


@pytest.mark.slow
def test_the_checkpoint_nearest_to_real_images_is_named_where_the_end_is_further_away() -> None:
    z = torch.randn(200, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        real = Painter(reach=1.0)(z)
    found = series(
        [Painter(reach=r, seed=1) for r in (0.2, 0.6, 1.0, 0.4, 0.2)], data=real, only=["progress", "balance"], n=200
    )
    (finding,) = found.section("progress")[0].findings
    assert finding.text.startswith("**Epoch 2 is closer to the real images than the last checkpoint**")
    assert "area under ROC" in found.section("balance")[0].summary


def test_separate_scores_are_told_apart_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    same, apart = rng.standard_normal(300), rng.standard_normal(300) + 8
    assert told_apart(apart, same)[0] > 0.999
    area, low, high = told_apart(rng.standard_normal(300), same)
    assert low < 0.5 < high
    assert abs(area - 0.5) < 0.1


def test_a_checkpoint_is_let_go_before_the_next_is_opened() -> None:
    alive: list[weakref.ref[Gan]] = []
    most = []

    def opened() -> Gan:
        gc.collect()
        most.append(sum(one() is not None for one in alive))
        networks = Networks(Painter(seed=len(alive)), CornerDiscriminator(), LatentSpace("z", (16,)))
        made = build_gan(networks, name="g", opening=Opening("testing", "made"))
        alive.append(weakref.ref(made))
        return made

    compare([Source(str(i), opened, float(i)) for i in range(3)], of="series", n=32, concepts=("colours",), strict=True)
    assert most == [0, 0, 0]


def test_other_latents_in_one_series_are_one_sentence() -> None:
    other = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Unflatten(1, (3, 32, 32)), nn.Tanh()).eval()
    networks = Networks(other, None, LatentSpace("z", (8,)))
    mine = Networks(Painter(), None, LatentSpace("z", (16,)))
    sources = [
        Source(name, lambda made=made: build_gan(made, name="g", opening=Opening("t", "t")))  # type: ignore[misc]
        for name, made in (("a", mine), ("b", networks))
    ]
    with pytest.raises(UsageError, match="one training take the same latents: b takes z of 8"):
        compare(sources, of="series", n=16, concepts=NO_CONCEPTS)


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))


def event(step: int, tag: str, value: float, form: str = "simple") -> bytes:
    """One record as TensorBoard's writers make it: an old scalar, or a tensor of one float (packed or raw)."""
    number = struct.pack("<f", value)
    body = {
        "simple": b"\x15" + number,
        "packed": _field(8, b"\x08\x01" + _field(2, b"") + _field(5, number)),
        "raw": _field(8, b"\x08\x01" + _field(4, number)),
    }[form]
    summary = _field(1, _field(1, tag.encode()) + body)
    return _record(b"\x09" + struct.pack("<d", 1.0) + b"\x10" + _varint(step) + _field(5, summary))


def test_the_checksum_is_crc32c_masked() -> None:
    crc = 0xE3069283  # CRC-32C of "123456789", the standard's check value
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc(b"") == 0xA282EAD8


def test_a_planted_event_file_is_read_in_all_forms_of_scalars(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    header = _record(b"\x09" + struct.pack("<d", 1.0) + _field(3, b"brain.Event:2"))
    forms = ["simple", "packed", "raw"]
    path.write_bytes(header + b"".join(event(10**6 * i, "loss/D", i / 4, forms[i % 3]) for i in range(9)))
    found = read_events(path)
    assert (found.records, found.trouble) == (10, "")
    assert found.scalars == {"loss/D": [(10**6 * i, i / 4) for i in range(9)]}
    log = read_log(tmp_path)
    assert (log.curves[0].role, log.curves[0].values.tolist()) == ("discriminator", [i / 4 for i in range(9)])


def test_a_record_too_large_for_scalars_is_passed_over_and_said(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(event(0, "g_loss", 0.5) + _record(bytes(70_000)) + event(1, "g_loss", 0.25))
    log = read_log(path)
    assert log.curves[0].values.tolist() == [0.5, 0.25]
    assert log.notes == ("events.out.tfevents.1: 1 records too large for scalars were passed over",)


def test_whole_records_before_a_damage_are_kept_and_the_damage_is_said(tmp_path: Path) -> None:
    whole = [event(i, "g_loss", float(i)) for i in range(5)]
    start = b"".join(whole)
    size = len(whole[0])
    damaged = {
        "cut": (start[:-7], 4),
        "length": (start[: 3 * size] + struct.pack("<Q", 2**60) + start[3 * size + 8 :], 3),
        "bit": (start[: 2 * size + 20] + bytes([start[2 * size + 20] ^ 1]) + start[2 * size + 21 :], 2),
        "no event": (start + _record(b"\x2a\x7f"), 5),
        "endless number": (start + _record(b"\xff" * 12), 5),
        "noise": (start + np.random.default_rng(0).bytes(300), 5),
    }
    for name, (content, kept) in damaged.items():
        path = tmp_path / "events.out.tfevents.1"
        path.write_bytes(content)
        found = read_events(path)
        assert (name, found.records, len(found.scalars["g_loss"])) == (name, kept, kept)
        assert f"record {kept + 1} at byte" in found.trouble
        assert any(f"the {kept} records before it were read" in note for note in read_log(path).notes)


def test_random_bytes_never_raise_anything_but_one_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(200):
        path = tmp_path / ("events.out.tfevents.1" if i % 2 else "log.csv")
        path.write_bytes(_record(rng.bytes(int(rng.integers(60)))) if i % 4 == 1 else rng.bytes(int(rng.integers(200))))
        with suppress(UsageError):
            assert read_log(path).curves


def test_a_planted_csv_is_read_with_gaps_text_and_other_delimiters(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text(
        "epoch;D_loss;G_loss;note\n0;1,5;0.7;start\n1;1.25;;\n2;nan;0.5;x\n3;1.0\n4;0.75;0.25;\n", "utf-8-sig"
    )
    log = read_log(path)
    told = {curve.name: (curve.role, curve.steps.tolist(), curve.values.tolist(), curve.broken) for curve in log.curves}
    assert told == {
        "D_loss": ("discriminator", [0, 1, 4], [1.5, 1.25, 0.75], 2.0),
        "G_loss": ("generator", [0, 2, 4], [0.7, 0.5, 0.25], None),
    }
    assert log.step_name == "epoch"
    assert "1 rows of another length" in log.notes[0]


def test_a_csv_without_a_header_counts_rows_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("0.5,0.9\n0.4,1.1\n0.6,1.0\n")
    log = read_log(path)
    assert [curve.name for curve in log.curves] == ["column 1", "column 2"]
    assert log.curves[0].steps.tolist() == [0, 1, 2]
    assert "rows are counted" in log.notes[0]


def test_whose_loss_a_column_is_comes_from_its_name() -> None:
    discriminator = ["D_loss", "loss/discriminator", "errD", "lossD", "train/d_loss", "critic_loss", "netD/loss", "D"]
    generator = ["G_loss", "loss_g", "gLoss", "Loss/G", "generator", "gen_loss"]
    other = ["lr", "epoch", "GAN loss", "d_acc", "loss_D_real", "D(x)", "fid", "ganloss", "grad_norm_g", "loss"]
    assert {role_of(name) for name in discriminator} == {"discriminator"}
    assert {role_of(name) for name in generator} == {"generator"}
    assert [name for name in other if role_of(name) != "other"] == []


def test_losses_alone_make_a_report_with_both_levels(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("step,d_loss,g_loss\n" + "".join(f"{i},1.386,0.693\n" for i in range(1000)))
    report = compare([], of="series", log=read_log(path), strict=True)
    losses = report.section("losses")[0]
    assert losses.status == "done"
    assert "d_loss 1.39, g_loss 0.693" in losses.summary.replace(
        "g_loss 0.693, d_loss 1.39", "d_loss 1.39, g_loss 0.693"
    )
    labels = {series.label for block in losses.blocks for series in getattr(block, "series", ())}
    assert {"ln 2 (G; D where averaged)", "2 ln 2 (D where added)"} < labels
    assert {one.status for one in report.sections if one.analyzer != "losses"} == {"skipped"}
    assert report.findings() == ()


def test_a_loss_below_zero_gets_no_level_and_one_that_breaks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("step,critic_loss,g_loss\n0,-3,1\n1,-2,2\n2,nan,3\n3,-1,nan\n")
    losses = compare([], of="series", log=read_log(path), strict=True).section("losses")[0]
    labels = {series.label for block in losses.blocks for series in getattr(block, "series", ())}
    assert labels == {"critic_loss", "g_loss"}
    assert [finding.text[:49] for finding in losses.findings] == ["**critic_loss is not a finite number from step 2 "]
