"""Every method finds what was planted for it, and what methods agree on is told from chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.directions import Directions, LatentDirections, property_rulers, rescore, sefa
from gandissect_plugins.directions.consensus import consensus, principal_cosines
from gandissect_plugins.directions.contrastive import contrastive_loss, latentclr, margins
from gandissect_plugins.directions.ica import ica_of
from gandissect_plugins.directions.inner import components_of_w, sefa_in_w, style_weights
from gandissect_plugins.directions.layers import channel_scores, layer_effects, style_channels
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Data, Table
from gandissect.cli.edit import moved, read_direction
from gandissect.errors import NoSuchCapability
from gandissect.gan import InnerSpace, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.report import Report
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import PLANTED, tiny_gan, tiny_session


class Styles(nn.Module):
    """w = z; style 0 sets the brightness of the whole, style 1 that of the lower half, channel by channel of s.

    Channel 0 of style 0 follows w0, channel 0 of style 1 follows w1; all other channels are drawn without effect.
    """

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        for k, layer in enumerate((self.first, self.second)):
            nn.init.normal_(layer.weight, 0, 0.05)
            with torch.no_grad():
                layer.weight[0] = 0.0
                layer.weight[0, k] = 1.0

    def modulate(self, ws: Tensor) -> Tensor:
        return torch.cat([self.first(ws[:, 0]), self.second(ws[:, 1])], 1)

    def paint(self, styles: Tensor) -> Tensor:
        whole, lower = styles[:, 0, None, None], styles[:, styles.shape[1] // 2, None, None]
        rows = torch.linspace(-1, 1, 8)[None, :, None].expand(len(styles), 8, 8)
        image = 0.25 * whole + 0.25 * lower * (rows > 0)
        return torch.tanh(image)[:, None].expand(-1, 3, -1, -1)

    def forward(self, z: Tensor) -> Tensor:
        return self.paint(self.modulate(z[:, None].expand(-1, 2, -1)))


def styled(n: int = 200) -> Session:
    net = Styles()

    def spread(z: Tensor, _labels: Tensor | None) -> Tensor:
        return z[:, None].expand(-1, 2, -1)

    spaces = (
        InnerSpace("w", (8,), lambda z, _: z * 1.0, lambda w, _: net(w), torch.zeros(8)),
        InnerSpace("w+", (2, 8), spread, lambda ws, _: net.paint(net.modulate(ws))),
        InnerSpace("s", (16,), lambda z, _: net.modulate(spread(z, None)), lambda s, _: net.paint(s)),
    )
    networks = Networks(net, None, LatentSpace("z", (8,)), inner=spaces)
    return Session(build_gan(networks, name="styles", opening=Opening("t", "t")), n=n)


def part(method: str, rows: np.ndarray) -> Directions:
    names = tuple(f"{method} {i}" for i in range(len(rows)))
    return Directions(method, names, rows.astype(np.float32), np.ones(len(rows)), "x", np.zeros(0))


def test_ica_finds_the_axes_of_independent_sources_and_pca_cannot() -> None:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((400, 6))
    sources = np.sign(latents[:, :3]) * latents[:, :3] ** 2  # heavy tails along three axes
    mixed = sources @ rng.standard_normal((3, 30))
    vectors, kurtosis = ica_of(mixed, latents, 3, 0)
    assert sorted(np.abs(vectors).argmax(1)) == [0, 1, 2]
    assert np.abs(vectors).max(1).min() > 0.95
    assert (np.diff(kurtosis) <= 0).all()


def test_learned_directions_are_told_apart_better_than_the_random_ones_they_began_as() -> None:
    session = tiny_session("planted", n=64)
    learned = latentclr(session, PLANTED.layer, 4)
    assert learned.margin > learned.margin_before + 0.1
    assert np.linalg.norm(learned.found.vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    again = latentclr(tiny_session("planted", n=64, batch_size=3), PLANTED.layer, 4)
    assert np.array_equal(again.found.vectors, learned.found.vectors)
    module = session.gan.generator.module
    assert not any(part._forward_hooks for part in module.modules())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_the_contrastive_loss_is_least_where_each_direction_does_one_thing() -> None:
    own = torch.eye(3).expand(4, 3, 3)
    same = torch.ones(4, 3, 3)
    assert contrastive_loss(own) < contrastive_loss(torch.randn(4, 3, 3)) < contrastive_loss(same) + 5
    assert margins(own) == pytest.approx(torch.ones(3), abs=1e-6)
    assert margins(same) == pytest.approx(torch.zeros(3), abs=1e-6)


def test_the_variants_of_sefa_are_named_and_differ() -> None:
    generator = tiny_gan("vector").generator
    scaled, raw = sefa(generator, 3), sefa(generator, 3, normalise=False)
    assert (scaled.names[0], raw.names[0]) == ("SeFa 1", "SeFa unscaled 1")
    assert np.abs((scaled.vectors * raw.vectors).sum(1)).min() < 0.9999


def test_principal_angles_and_consensus_are_told_from_chance() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((40, 6)))[0].T
    turned = np.linalg.qr(rng.standard_normal((3, 3)))[0] @ basis[:3]
    assert principal_cosines(basis[:3], turned) == pytest.approx(np.ones(3))
    assert principal_cosines(basis[:3], basis[3:]) == pytest.approx(np.zeros(3), abs=1e-9)
    parts = [part("GANSpace", basis[:3]), part("SeFa", turned), part("SeFa unscaled", turned), part("ICA", basis[3:])]
    found = consensus(parts, np.random.default_rng(1))
    assert found.agreement[0, 1] == pytest.approx(1.0)
    assert found.chance[0, 1] == pytest.approx(3 / 40)
    assert found.agreement[0, 3] < found.chance[0, 3]
    assert found.nearest["SeFa 0"][0].startswith("GANSpace")  # not its own variant
    assert found.nearest["ICA 0"][1] < found.by_chance["ICA 0"]
    drawn = [part("A", rng.standard_normal((4, 40))), part("B", rng.standard_normal((4, 40)))]
    draws = [principal_cosines(*(rng.standard_normal((4, 40)) for _ in range(2))) for _ in range(200)]
    assert float(np.mean([(c**2).mean() for c in draws])) == pytest.approx(consensus(drawn, rng).chance[0, 1], rel=0.1)


def test_a_step_in_one_layer_changes_what_that_layer_draws() -> None:
    session = styled()
    rulers = property_rulers(session, 200)
    found = layer_effects(session, {"whole": np.eye(8)[0], "lower": np.eye(8)[1]}, rulers)
    brightness, below = rulers.names.index("brightness"), rulers.names.index("light below")
    layer, share = found.locality(0, brightness)
    assert (layer, share > 0.9) == (0, True)
    layer, share = found.locality(1, below)
    assert (layer, share > 0.9) == (1, True)


def test_the_channels_that_draw_are_those_that_are_found() -> None:
    session = styled()
    found = style_channels(session, 200, property_rulers(session, 200))
    assert found is not None
    passing = {
        (found.effects.directions[i], target)
        for i, target in enumerate(found.targets)
        if found.effects.passes(i, found.effects.properties.index(target))
    }
    assert ("s8", "light below") in passing
    assert {name for name, _ in passing} <= {"s0", "s8"}


def test_a_channel_that_does_not_vary_has_no_score() -> None:
    rng = np.random.default_rng(0)
    styles = np.concatenate([rng.standard_normal((200, 3)), np.ones((200, 1))], 1)
    scores = channel_scores(styles, styles[:, 1])
    assert (int(scores.argmax()), scores[3]) == (1, 0.0)


def test_sefa_in_w_takes_the_style_layers_and_finds_what_they_weigh_most() -> None:
    session = styled()
    assert [tuple(weight.shape) for weight in style_weights(session)] == [(8, 8), (8, 8)]
    found = sefa_in_w(session, 2, normalise=False)
    assert set(np.abs(found.vectors).argmax(1)) == {0, 1}
    assert components_of_w(session, 3, 200).vectors.shape == (3, 8)
    with pytest.raises(NoSuchCapability, match="no space w"):
        style_weights(tiny_session("planted", n=8))


def test_a_random_boundary_adds_something_though_it_changes_nothing_on_average() -> None:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.standard_normal((400, 2, 6)))

    def score(codes: Tensor) -> np.ndarray:
        return np.asarray((codes[:, 0, 0] * codes[:, 1, 1]).numpy())

    found = rescore(score, points, torch.eye(6, dtype=torch.float64)[1])
    assert found.overall > 0.5
    assert abs(found.signed_overall) < 0.2
    assert found.layers[0] == 0.0


def test_the_sections_of_a_style_generator_are_there_and_its_report_can_be_edited_from(tmp_path: Path) -> None:
    session = styled()
    sections = list(LatentDirections({"baseline": "12", "count": "2"}).run(session))
    titles = [section.title for section in sections]
    assert titles[2:] == ["Directions compared", "Directions in w", "Layers that directions act on", "Style channels"]
    named = [block.value for section in sections for block in section.blocks if isinstance(block, Data)]
    spaces = {entry["space"] for value in named for entry in value.values()}  # type: ignore[union-attr]
    assert {"z", "w"} <= spaces
    (table,) = [block for block in sections[2].blocks if isinstance(block, Table)][:1]
    effects = [row[3] for row in table.rows]
    assert effects == sorted(effects, reverse=True)


def test_a_direction_of_a_written_report_is_found_by_name_and_moves_the_image(tmp_path: Path) -> None:
    fewer = {"directions": {"baseline": "8", "count": "2", "strips": "1"}}
    report: Report = analyze(tiny_gan("planted"), ["directions"], n=120, options=fewer)
    report.save(tmp_path / "r.json")
    session = tiny_session("planted", n=2)
    frames = moved(session, read_direction(f"{tmp_path / 'r.json'}#brightness"), (-1.0, 0.0, 1.0))
    assert torch.equal(frames[1], session.images(2))
    assert frames[0].mean() < frames[2].mean()
