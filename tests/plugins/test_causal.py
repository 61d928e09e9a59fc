"""Units that draw are told from units that only follow; every effect stands beside random units."""

import math
from pathlib import Path

import pytest
import torch
from gandissect_plugins.dissection import Dissection, DissectionAnalyzer, ablate, causal_tests, dissect
from gandissect_plugins.dissection.causal import (
    CausalTests,
    PlaceGrid,
    Plan,
    Role,
    artifact_units,
    baseline,
    dose_response,
    examples,
    greedy,
    insert,
    insertion_map,
    optimise,
    places_of,
    where_present,
)
from gandissect_plugins.dissection.causal.artifacts import checkerboard, clipping
from gandissect_plugins.dissection.causal.edits import Blend, random_weights, weights_of
from gandissect_plugins.dissection.causal.orders import curve
from gandissect_plugins.dissection.causal.resampling import Resampling
from gandissect_plugins.dissection.causal.screening import first_order
from planted_causes import LAYER, LAYOUTS, UNITS, Truth, planted_causes
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Networks
from gandissect.blocks import Gallery, Heatmap, Line, Table, all_blocks
from gandissect.concepts import CallableSegmenter, Concept, Segmenter, Vocabulary
from gandissect.gan import LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.sampling import named_rng
from gandissect.session import Session
from gandissect.testing import PLANTED, tiny_gan
from gandissect.testing.tiny import Kind
from gandissect.vocabulary import build_vocabulary

ALONE = Plan(samples=96, units=UNITS, concepts=4, doses=0, maps=0, artifacts=0)


class SoftRed(Segmenter):
    """Red by a rule with a slope."""

    name = "soft-red"
    concepts = (Concept("red", "colour"),)

    def soft(self, images: Tensor) -> Tensor:
        return torch.sigmoid(6 * (images[:, :1] - images[:, 1:].amax(1, keepdim=True) - 1))

    def segment(self, images: Tensor, indices: object) -> Tensor:
        return self.soft(images) > 0.5


def red_session(n: int = 200, **options: int) -> Session:
    return Session(tiny_gan("planted"), vocabulary=Vocabulary([SoftRed()]), n=n, **options)


def named(seed: int, grid: int) -> tuple[Truth, CausalTests]:
    """The truth about a planted network, and what was found of it."""
    gan, truth = planted_causes(seed, grid)
    session = Session(gan, vocabulary=build_vocabulary(["colours"]), n=256)
    result = dissect(session, [LAYER], quantile=0.03, draws=199)
    return truth, causal_tests(session, result, ALONE, session.areas())


def roles_hold(seed: int, grid: int) -> None:
    """Nineteen of twenty roles are right, and no unit without a way to the image is said to cause anything."""
    truth, tests = named(seed, grid)
    roles = [tests.roles[LAYER, unit] for unit in range(UNITS)]
    right = [said == real for said, real in zip(roles, truth.roles, strict=True)]
    assert sum(right) >= 0.95 * UNITS, [(unit, roles[unit]) for unit in range(UNITS) if not right[unit]]
    innocent = (Role.CORRELATE, Role.DEAD)
    said_of = [said for said, real in zip(roles, truth.roles, strict=True) if real in innocent]
    assert set(said_of) <= {*innocent, Role.UNDECIDED}
    owned = [unit for unit in range(UNITS) if truth.concepts[unit] and truth.roles[unit] != Role.INHIBITORY]
    causes = {cause.unit: cause for cause in tests.causes}
    assert all(causes[unit].concept == truth.concepts[unit] for unit in owned)


@pytest.mark.parametrize(("seed", "grid"), [(0, LAYOUTS[0]), pytest.param(1, LAYOUTS[0], marks=pytest.mark.slow)])
def test_every_unit_of_a_planted_network_gets_its_role(seed: int, grid: int) -> None:
    roles_hold(seed, grid)


@pytest.mark.slow
@pytest.mark.parametrize("grid", LAYOUTS)
@pytest.mark.parametrize("seed", range(2, 12))
def test_the_same_holds_for_ten_seeds_in_two_layouts(seed: int, grid: int) -> None:
    roles_hold(seed, grid)


def tiny_random(seed: int) -> nn.Module:
    """A generator of two small layers that never learned."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5000 + seed)
        width = (8, 12, 16, 24)[seed % 4]
        return nn.Sequential(
            nn.ConvTranspose2d(16, 2 * width, 4), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.ConvTranspose2d(width, 1 if seed % 5 == 4 else 3, 4, 2, 1), nn.Tanh(),
        ).eval()  # fmt: skip


def claims(seed: int) -> int:
    """Findings of overlap and of cause in a network with random weights."""
    net = tiny_random(seed)
    net.train()
    with torch.no_grad():
        for part in net:
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        net(torch.randn(256, 16, 1, 1, generator=torch.Generator().manual_seed(seed)))
    networks = Networks(net.eval(), latent=LatentSpace("z", (16, 1, 1)))
    gan = build_gan(networks, name=f"random {seed}", opening=Opening("test", "random"))
    session = Session(gan, vocabulary=build_vocabulary(["colours", "light", "texture"]), n=160)
    result = dissect(session, draws=199)
    tests = causal_tests(session, result, Plan(samples=24, doses=0, maps=0, artifacts=0), session.areas())
    drawn = (Role.BOTH, Role.NECESSARY, Role.SUFFICIENT, Role.REDUNDANT, Role.INHIBITORY)
    sets = sum(test.causal or test.adds for test in tests.concepts)
    return len(result.found()) + sets + sum(role in drawn for role in tests.roles.values())


def test_a_few_random_networks_yield_no_claim() -> None:
    assert [claims(seed) for seed in range(3)] == [0, 0, 0]


@pytest.mark.slow
def test_at_most_one_in_twenty_of_two_hundred_random_networks_yields_a_claim() -> None:
    wrong = [seed for seed in range(200) if claims(seed)]
    assert len(wrong) <= 10, wrong


@pytest.fixture(scope="module")
def planted() -> tuple[Session, Dissection]:
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=400)
    return session, dissect(session, [PLANTED.layer])


def test_an_edit_is_exact_and_leaves_the_other_units_alone() -> None:
    x = torch.randn(3, 4, 5, 5)
    where = torch.zeros(3, 5, 5)
    where[:, 2, 3] = 1.0
    y = Blend(weights_of([1], 4), torch.tensor([9.0, 7.0, 9.0, 9.0]), where)("layer", x)
    assert (y[:, 1, 2, 3] == 7.0).all() and int((y != x).sum()) == 3
    assert torch.equal(Blend(weights_of([0], 4) * -1.0)("layer", x)[:, 0], 2 * x[:, 0])


def test_an_edit_of_a_vector_layer_knows_which_samples_have_a_place() -> None:
    where = torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1)
    y = Blend(weights_of([1], 4), None, where)("layer", torch.ones(3, 4))
    assert y[:, 1].tolist() == [0.0, 1.0, 0.0] and float(y.sum()) == 10.0


def test_an_edit_can_go_on_at_any_sample() -> None:
    edit = Blend(torch.eye(3))
    whole = edit("layer", torch.ones(3, 3))
    edit.begin(1)
    assert torch.equal(edit("layer", torch.ones(2, 3)), whole[1:])


def test_random_sets_of_one_draw_are_nested() -> None:
    drawn = torch.from_numpy(named_rng(0, "x").random((5, 9)))
    small, large = random_weights(5, 9, 2, drawn), random_weights(5, 9, 6, drawn)
    assert small.sum(1).tolist() == [2.0] * 5 and bool((small <= large).all())


def test_flipped_signs_resolve_a_paired_difference_and_not_noise() -> None:
    chance = Resampling.of(40, named_rng(0, "x"))
    noise = torch.from_numpy(named_rng(1, "y").standard_normal((400, 40)))
    p = torch.tensor([chance.p_more(row) for row in noise])
    assert abs(float((p <= 0.05).double().mean()) - 0.05) < 0.03
    assert chance.p_more(noise[0] + 2) < 0.001
    assert chance.p_more(torch.zeros(40, dtype=torch.float64)) == 1.0


def test_what_is_switched_off_where_the_concept_is_removes_it_too(planted: tuple[Session, Dissection]) -> None:
    session, _ = planted
    start = baseline(session, range(96))
    where = where_present(session, PLANTED.layer, "red", start)
    assert where.shape == (96, 8, 8) and 0 < float(where.mean()) < 0.1
    assert ablate(session, PLANTED.layer, [PLANTED.red], "red", where=where, samples=start).removed().removed == 1.0


def test_a_unit_adds_its_concept_where_it_was_absent_and_a_copy_adds_nothing(
    planted: tuple[Session, Dissection],
) -> None:
    session, _ = planted
    start = baseline(session, range(64))
    there = places_of(session, PlaceGrid.of(session.gan.generator.layer(PLANTED.layer)), start)
    level = torch.ones(16)
    made = {
        unit: insert(session, PLANTED.layer, [unit], "red", samples=start, level=level, there=there)
        for unit in (PLANTED.red, PLANTED.copy)
    }
    drawn, copied = made[PLANTED.red].gain(), made[PLANTED.copy].gain()
    assert drawn.gained == pytest.approx(1.0, abs=0.1) and drawn.samples == 64
    assert (copied.gained, copied.low, copied.high) == (0.0, 0.0, 0.0)
    assert made[PLANTED.red].p(made[PLANTED.copy]) < 0.001 < 0.999 < made[PLANTED.copy].p(made[PLANTED.red])


def test_the_map_shows_that_a_free_unit_can_be_inserted_anywhere(planted: tuple[Session, Dissection]) -> None:
    session, _ = planted
    start = baseline(session, range(32))
    there = places_of(session, PlaceGrid.of(session.gan.generator.layer(PLANTED.layer)), start)
    found = insertion_map(
        session, PLANTED.layer, [PLANTED.red], "red", samples=start, level=torch.ones(16), there=there, each=3
    )  # fmt: skip
    assert found.gain.shape == (7, 7) and float(found.gain.min()) > 0.8
    assert int(found.share.argmax()) in (0, 1, 7, 8), "by itself red is at the top left"


def test_windows_of_one_cell_cover_a_vector_layer_and_overlap_in_a_map() -> None:
    vector = PlaceGrid.of(tiny_gan("vector").generator.layers[0])
    assert vector.windows == (1, 1) and vector.cells(torch.tensor([0])).tolist() == [[[1.0]]]
    grid = PlaceGrid.of(tiny_gan("planted").generator.layer(PLANTED.layer))
    assert grid.windows == (7, 7) and grid.cells(torch.tensor([8]))[0].nonzero().tolist() == [
        [1, 1],
        [1, 2],
        [2, 1],
        [2, 2],
    ]


def test_the_response_falls_to_nothing_at_dose_zero(planted: tuple[Session, Dissection]) -> None:
    session, _ = planted
    found = dose_response(session, PLANTED.layer, [PLANTED.red], "red", samples=baseline(session, range(64)))
    left = [effect.removed for effect in found.area("red")]
    assert left[0] == 0.0 and left[found.doses.index(1.0)] == 1.0 and left == sorted(left)


def test_the_greedy_order_begins_with_the_unit_that_draws(planted: tuple[Session, Dissection]) -> None:
    session, _ = planted
    start = baseline(session, range(48))
    order = greedy(session, PLANTED.layer, "red", [PLANTED.copy, PLANTED.green, PLANTED.red], 2, samples=start)
    assert order[0] == PLANTED.red
    effects = curve(session, PLANTED.layer, "greedy", order, "red", [1, 2], samples=start).effects
    assert [effect.removed for effect in effects] == [1.0, 1.0]


def test_ace_tells_the_unit_that_draws_from_its_copy() -> None:
    session = red_session()
    start = baseline(session, range(64))
    grid = PlaceGrid.of(session.gan.generator.layer(PLANTED.layer))
    held = grid.held(places_of(session, grid, start)[:, 0])
    present, absent = (examples(session, grid, held, start, present=there) for there in (True, False))
    guess, level = torch.zeros(16), torch.ones(16)
    guess[[PLANTED.red, PLANTED.copy]] = 0.5
    alpha = optimise(session, PLANTED.layer, "red", guess, level, present, absent, steps=30, batch=8)
    assert float(alpha[PLANTED.red]) > 0.7 > 0.45 > float(alpha[PLANTED.copy])
    assert float(alpha.min()) >= 0.0 and float(alpha.max()) <= 1.0
    assert all(p.requires_grad and p.grad is None for p in session.gan.generator.module.parameters())


def test_orders_are_compared_on_held_out_samples_and_a_missing_slope_is_said() -> None:
    plan = Plan(samples=24, units=4, concepts=1, set_size=2, doses=0, maps=0, orders=1, ace_steps=4, artifacts=0)
    for vocabulary, names in (
        (Vocabulary([SoftRed()]), {"IoU", "ACE", "greedy", "random"}),
        (None, {"IoU", "greedy", "random"}),
    ):
        session = Session(tiny_gan("planted"), vocabulary=vocabulary or hard_red(), n=200)
        (found,) = causal_tests(session, dissect(session, [PLANTED.layer]), plan, session.areas()).orders
        assert {one.name for one in found.curves} == names and found.samples == 12
        assert bool(found.note) == (vocabulary is None)


def hard_red() -> Vocabulary:
    """Red without a slope."""
    return Vocabulary(
        [CallableSegmenter(lambda images: images[:, :1] - images[:, 1:].amax(1, keepdim=True) > 1, ["red"])]
    )


def test_the_first_order_estimate_ranks_the_unit_that_draws_first() -> None:
    session = red_session()
    with_red = session.areas()[:, 0].nonzero()[:8, 0].tolist()
    rise = first_order(session, [PLANTED.layer], lambda images: -images[:, 0].mean((1, 2)), with_red)[PLANTED.layer]
    assert int(rise[: PLANTED.copy + 1].argmax()) == PLANTED.red and float(rise[PLANTED.copy]) == 0.0


def test_the_first_order_estimate_includes_a_layer_that_sees_the_label_alone() -> None:
    session = Session(tiny_gan("conditional"), n=8)
    rise = first_order(session, ["embedding"], lambda images: images.mean((1, 2, 3)), range(8))
    assert rise["embedding"].shape == (32,) and rise["embedding"].abs().max() > 0


def test_defects_are_told() -> None:
    stripes = torch.zeros(1, 3, 8, 8)
    stripes[..., ::2] = 0.5
    smooth = torch.linspace(-1, 1, 9)[:8].expand(1, 3, 8, 8)
    assert float(checkerboard(stripes)) == pytest.approx(100.0) and float(checkerboard(smooth)) < 5
    assert float(clipping(smooth)) == pytest.approx(12.5) and float(clipping(stripes)) == 0.0


class Spoilt(nn.Module):
    """Latent [N, 4] to [N, 3, 16, 16]: unit 2 lays stripes over a smooth picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(4, 4, 16)
        self.act = nn.ReLU()
        self.to_rgb = nn.Conv2d(4, 3, 1)
        ramp = torch.linspace(0.1, 1, 16)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0] = ramp[:, None].expand(16, 16)
            self.conv.weight[1, 1] = ramp.expand(16, 16)
            self.conv.weight[2, 2, :, ::2] = 1.0
            self.conv.weight[3, 3] = ramp[:, None] * ramp
            for weights in (self.to_rgb.weight, self.to_rgb.bias, self.conv.bias):
                assert weights is not None
                weights.fill_(0.2)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.to_rgb(self.act(self.conv(z[:, :, None, None]))))


def test_the_unit_that_lays_stripes_is_the_artifact_unit() -> None:
    gan = build_gan(
        Networks(Spoilt().eval(), latent=LatentSpace("z", (4,))), name="spoilt", opening=Opening("test", "made")
    )
    found = artifact_units(Session(gan, n=64), ["act"], count=4, samples=32)
    stripes = [test for test in found.found() if test.measure == "checkerboard energy"]
    assert [test.unit for test in stripes] == [2] and stripes[0].after < stripes[0].before
    assert found.images[0][:2] == ("act", 2)


class DrawnTwiceLater(nn.Module):
    """Latent [N, 4] to [N, 3, 16, 16]: one unit of ``first`` makes a red square, which two units of ``later`` draw twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first = nn.ConvTranspose2d(4, 4, 16), nn.Hardtanh(0.0, 1.0)
        self.mix, self.later = nn.Conv2d(4, 8, 1), nn.Hardtanh(0.0, 1.0)
        self.to_rgb = nn.Conv2d(8, 3, 1)
        with torch.no_grad():
            for layer in (self.conv, self.mix, self.to_rgb):
                for weights in layer.parameters():
                    weights.zero_()
            self.conv.weight[0, 0, :4, :4] = 20.0
            self.conv.weight[1, 1:] = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
            assert self.conv.bias is not None
            self.conv.bias[0] = -26.0
            self.mix.weight[:2, 0] = 1.0
            self.to_rgb.weight[:, :2, 0, 0] = 40.0 * torch.tensor([[1.0], [-1.0], [-1.0]])

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.later(self.mix(self.first(self.conv(z[:, :, None, None]))))
        return torch.tanh(self.to_rgb(hidden))


def test_a_set_is_taken_in_the_layer_where_it_removes_most() -> None:
    networks = Networks(DrawnTwiceLater().eval(), latent=LatentSpace("z", (4,)))
    gan = build_gan(networks, name="twice", opening=Opening("test", "made"))
    session = Session(gan, vocabulary=Vocabulary([SoftRed()]), n=300)
    result = dissect(session, ["later", "first"])
    assert {row.layer for row in result.found()} == {"first", "later"}
    tests = causal_tests(session, result, Plan(set_size=1, units=4, doses=0, maps=0, artifacts=0), session.areas())
    assert (tests.concepts[0].layer, tests.concepts[0].units) == ("first", (0,)) and tests.concepts[0].causal
    assert [tests.roles["later", unit] for unit in (0, 1)] == [Role.REDUNDANT] * 2


@pytest.mark.parametrize("kind", ["conditional", "vector", "grey"])
def test_labels_vectors_and_grey_images_are_edited(kind: Kind) -> None:
    light = CallableSegmenter(lambda images: images[:, :1] > 0, ["light"])
    session = Session(tiny_gan(kind), vocabulary=Vocabulary([light]), n=64)
    layer = next(info for info in session.gan.generator.main_layers() if info.editable)
    start, grid = baseline(session, range(24)), PlaceGrid.of(layer)
    level = torch.full((layer.channels,), 2.0)
    made = insert(session, layer.name, [0], "light", samples=start, level=level, there=places_of(session, grid, start))
    assert made.gained.isfinite().all() and len(made.places) <= 24
    assert math.isfinite(ablate(session, layer.name, [0], "light", samples=start).removed().removed)
    assert artifact_units(session, [layer.name], count=3, samples=8).units == 3


def test_the_section_shows_roles_doses_and_places() -> None:
    session = Session(tiny_gan("planted"), vocabulary=Vocabulary([SoftRed()]), n=300)
    options = {"causal_orders": 1, "causal_ace_steps": 2, "set_size": 2, "layers": (PLANTED.layer,)}
    sections = list(DissectionAnalyzer(options).run(session))
    section = sections[-1]
    assert section.title == "What units cause" and "removes 100 %" in section.summary
    kinds = [type(block) for block in all_blocks(section.blocks)]
    assert kinds.count(Line) == 3 and kinds.count(Heatmap) == 2
    table = next(block for block in section.blocks if isinstance(block, Table) and block.columns[-1] == "role")
    roles = {row[0]: row[-1] for row in table.rows}
    assert roles["act1 · 0"] == "necessary and sufficient" and roles["act1 · 4"] == "correlate only"
    gallery = next(block for part in sections for block in part.blocks if isinstance(block, Gallery))
    card = next(card for card in gallery.cards if card.key == "act1/0")
    assert (
        card.facets["role"] == roles["act1 · 0"]
        and ("switched off alone", "removes 100 % (CI 100 to 100) of red area") in card.facts
    )


def test_a_recorded_network_is_edited_as_the_live_one(tmp_path: Path) -> None:
    live = tiny_gan("planted")
    torch.jit.save(torch.jit.trace(live.generator.module, torch.zeros(2, 16)), tmp_path / "gan.ts")  # type: ignore[no-untyped-call]
    recorded = gandissect.open(tmp_path / "gan.ts")
    made = []
    for gan in (live, recorded):
        session = Session(gan, vocabulary=Vocabulary([SoftRed()]), n=200)
        start = baseline(session, range(40))
        grid = PlaceGrid.of(session.gan.generator.layer(PLANTED.layer))
        there = places_of(session, grid, start)
        added = insert(session, PLANTED.layer, [0], "red", samples=start, level=torch.ones(16), there=there).gain()
        made.append((ablate(session, PLANTED.layer, [0], "red", samples=start).removed(), added))
    assert made[0] == made[1] and made[0][0].removed == 1.0
