"""Planted units are found and proved causal; networks that never learned yield nothing."""

import dataclasses

import pytest
import torch
from gandissect_plugins.dissection import DissectionAnalyzer, Plan, ablate, causal_tests, dissect
from gandissect_plugins.dissection.counting.active import ActiveCells, CodedCells
from gandissect_plugins.dissection.significance.chance import benjamini_hochberg, p_values, shuffled_overlaps
from gandissect_plugins.vocabularies import MaskFolder
from PIL import Image
from torch import nn

from gandissect.adapter import Networks
from gandissect.blocks import Data, Gallery
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.errors import NoSuchCapability, UnknownName, UsageError
from gandissect.gan import LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.sampling import named_rng
from gandissect.session import Session
from gandissect.testing import PLANTED, RandomGenerator, tiny_gan
from gandissect.vocabulary import DEFAULT as LOW_LEVEL
from gandissect.vocabulary import build_vocabulary

N = 400


def planted_session(**options):
    return Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours", "position"]), n=N, **options)


def random_gan(seed, net):
    return build_gan(
        Networks(net, latent=LatentSpace("z", (32,))), name=f"random {seed}", opening=Opening("test", "random")
    )


@pytest.fixture(scope="module")
def planted():
    session = planted_session()
    return session, dissect(session, [PLANTED.layer])


@pytest.mark.parametrize("colour", ["red", "green", "blue", "yellow"])
def test_a_planted_unit_is_found_with_an_iou_above_nine_tenths(planted, colour):
    rows = {row.unit: row for row in planted[1].found()}
    row = rows[getattr(PLANTED, colour)]
    assert row.concept == colour and row.iou > 0.9 and row.p < 0.01 and row.q < 0.05


def test_only_the_planted_units_and_the_copy_are_found(planted):
    assert {row.unit for row in planted[1].found()} == {0, 1, 2, 3, PLANTED.copy}


def test_ablating_the_planted_unit_removes_its_concept(planted):
    effect = ablate(planted[0], PLANTED.layer, [PLANTED.red], "red", n=N).removed()
    assert effect.removed > 0.99 and effect.low > 0.95


def test_a_unit_that_only_correlates_has_exactly_no_effect(planted):
    ablation = ablate(planted[0], PLANTED.layer, [PLANTED.copy], "red", n=N)
    assert ablation.removed().removed == 0.0 and torch.equal(ablation.before, ablation.after)


def test_the_set_of_units_of_a_concept_is_called_causal_beside_random_units(planted):
    session, result = planted
    areas = session.areas()
    tests = causal_tests(session, result, Plan(samples=40, units=4, concepts=2, set_size=2), areas)
    assert all(test.causal for test in tests.concepts if test.layer == PLANTED.layer)
    assert tests.concepts and tests.causes


def test_positions_are_never_a_label(planted):
    spatial = {concept.name for concept in planted[1].concepts if concept.spatial}
    assert spatial and not spatial & {row.concept for row in planted[1].labels()}


def test_dead_and_constant_units_have_no_label_and_no_nan(planted):
    table = planted[1].table(PLANTED.layer)
    for unit in (PLANTED.dead, PLANTED.constant):
        assert int(table.label[unit]) == -1 and float(table.iou[unit].abs().max()) == 0.0
    assert torch.isfinite(table.iou).all() and torch.isfinite(table.correlation).all()


def test_a_concept_that_is_never_there_has_iou_zero_and_is_not_tested(planted):
    result = planted[1]
    k = [concept.name for concept in result.concepts].index("pink")
    assert not result.tested[k] and float(result.table(PLANTED.layer).iou[:, k].max()) == 0.0


def test_the_null_keeps_position_and_knows_what_it_explains():
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours", "position"]), n=N)
    result = dissect(session, [PLANTED.layer])
    table = result.table(PLANTED.layer)
    names = [concept.name for concept in result.concepts]
    corner = names.index("top left")
    assert float(table.iou[PLANTED.red, corner]) == pytest.approx(float(table.null_iou[PLANTED.red, corner]), rel=1e-4)
    assert float(table.p[PLANTED.red, names.index("red")]) < 0.01


@pytest.mark.parametrize("seed", [9, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(9))])
def test_a_random_network_yields_no_findings(seed):
    channels = 1 if seed == 9 else 3
    net = RandomGenerator(seed, channels, width=8 if seed % 2 else 16)
    session = Session(random_gan(seed, net), vocabulary=build_vocabulary(LOW_LEVEL), n=200)
    assert dissect(session).found() == []


def test_a_network_as_it_was_initialised_yields_no_findings():
    torch.manual_seed(0)
    net = RandomGenerator(0)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
    session = Session(random_gan(0, net.eval()), vocabulary=build_vocabulary(LOW_LEVEL), n=200)
    sections = list(DissectionAnalyzer().run(session))
    assert not any(section.findings for section in sections)


def wide_random(seed, kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)
        net = RandomGenerator(seed, 1 if kind == 4 else 3, width=(16, 32, 8, 4, 16)[kind])
        if kind == 0:
            for part in net.modules():
                if isinstance(part, nn.ConvTranspose2d):
                    nn.init.normal_(part.weight, 0, 0.02)
            net.train()
            with torch.no_grad():
                net(torch.randn(256, 32))
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_fifty_random_networks_yield_no_findings(seed):
    session = Session(random_gan(seed, wide_random(seed, seed % 5)), vocabulary=build_vocabulary(LOW_LEVEL), n=300)
    assert dissect(session).found() == []


def test_numbers_do_not_depend_on_the_batch_size():
    results = [dissect(planted_session(batch_size=size), [PLANTED.layer], n=64) for size in (1, 7, 64)]
    for other in results[1:]:
        for field in dataclasses.fields(results[0].layers[0]):
            first, second = (getattr(result.layers[0], field.name) for result in (results[0], other))
            if isinstance(first, torch.Tensor):
                assert torch.equal(first.nan_to_num(-1), second.nan_to_num(-1)), field.name


def test_all_readable_layers_can_be_dissected():
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=32)
    names = [table.layer.name for table in dissect(session, ["all"]).layers]
    assert names == [info.name for info in session.gan.generator.layers]


def test_vector_layers_are_one_cell_maps():
    session = Session(tiny_gan("vector"), vocabulary=build_vocabulary(LOW_LEVEL), n=100)
    result = dissect(session)
    assert all(table.layer.height == 1 for table in result.layers)
    assert all(torch.isfinite(table.iou).all() for table in result.layers)


def test_a_conditional_generator_is_dissected_and_ablated():
    session = Session(tiny_gan("conditional"), vocabulary=build_vocabulary(["light"]), n=64)
    result = dissect(session)
    layer = next(table.layer for table in result.layers if table.layer.editable)
    assert ablate(session, layer.name, [0], "dark", n=16).before.shape == (16, 4)


def test_the_sections_tell_what_was_found():
    session = planted_session()
    sections = list(DissectionAnalyzer({"causal_samples": 30, "cards": 8}).run(session))
    assert [section.title for section in sections] == [
        "Units and concepts",
        "Units",
        "Units by concepts",
        "Map of units",
        "What position alone explains",
        "What units cause",
    ]
    assert sections[0].findings and all(finding.trust.level == "checked" for finding in sections[0].findings)
    value = next(block for block in sections[0].blocks if isinstance(block, Data))
    assert value.name == "layer-concepts" and value.value[PLANTED.layer]["red"] == 2
    gallery = next(block for block in sections[1].blocks if isinstance(block, Gallery))
    assert {"act1/0", "act1/4"} <= {card.key for card in gallery.cards}
    assert all(section.meaning for section in sections)


def test_the_card_dims_everything_but_the_planted_square():
    session = planted_session()
    sections = list(DissectionAnalyzer({"causal_samples": 30}).run(session))
    gallery = next(block for block in sections[1].blocks if isinstance(block, Gallery))
    card = next(card for card in gallery.cards if card.key == "act1/0")
    first = card.images[0]
    assert first[4, 4, 0] > 240 and first[20:, 20:].max() < 90


def test_given_masks_are_dissected_but_never_ablated(tmp_path):
    source = planted_session()
    red = source.masks()[:, [concept.name for concept in source.vocabulary.concepts].index("red")]
    (tmp_path / "square").mkdir()
    for index in range(N):
        if red[index].any():
            Image.fromarray(red[index].numpy()).save(tmp_path / "square" / f"{index}.png")
    session = Session(tiny_gan("planted"), vocabulary=Vocabulary([MaskFolder(tmp_path)]), n=N)
    sections = list(DissectionAnalyzer().run(session))
    assert sections[0].findings and sections[-1].status == "skipped"
    with pytest.raises(NoSuchCapability, match="reads pixels"):
        ablate(session, PLANTED.layer, [0], "square")


def test_bad_arguments_say_what_is_expected():
    session = planted_session()
    with pytest.raises(UsageError, match="quantile"):
        dissect(session, quantile=0.0)
    with pytest.raises(UsageError, match="resolution"):
        dissect(session, resolution="fine")
    with pytest.raises(UnknownName, match="act1"):
        dissect(session, ["act"])
    with pytest.raises(UsageError, match="0 to 15"):
        ablate(session, PLANTED.layer, [99])
    with pytest.raises(NoSuchCapability, match="--concepts"):
        dissect(Session(tiny_gan("planted"), n=8))


def test_one_sample_gives_no_findings_and_no_crash():
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=1)
    assert dissect(session).found() == []


def noise(units=6, samples=40, cells=9, concepts=5, seed=0):
    made = torch.Generator().manual_seed(seed)
    lit = torch.rand(units, samples, cells, generator=made) < 0.1
    unit, sample, cell = lit.nonzero(as_tuple=True)
    return ActiveCells(units, samples, cells, unit, sample, cell), torch.rand(samples, cells, concepts, generator=made)


def test_shifts_through_fourier_are_overlaps_with_the_masks_of_other_samples():
    active, areas = noise()
    null = shuffled_overlaps(active, areas, rng=named_rng(0, "x"), draws=39)
    order = torch.from_numpy(named_rng(0, "x").permutation(40))
    for shift in (1, 17, 39):
        moved = torch.empty_like(areas)
        moved[order] = areas[order.roll(-shift)]
        assert torch.allclose(active.overlaps(moved).float(), null[shift - 1], atol=1e-4)


def test_where_few_shifts_are_asked_for_each_cohort_is_shifted_by_itself():
    active, areas = noise()
    null = shuffled_overlaps(active, areas, rng=named_rng(0, "x"), draws=9)  # four cohorts of ten
    order = torch.from_numpy(named_rng(0, "x").permutation(40)).reshape(4, 10)
    coded = CodedCells(6, 40, 9, lit_of(active).short(), torch.ones(6).long())
    assert torch.allclose(shuffled_overlaps(coded, areas, rng=named_rng(0, "x"), draws=9), null, atol=1e-4)
    for shift in (1, 4, 9):
        moved = torch.empty_like(areas)
        moved[order.flatten()] = areas[order.roll(-shift, 1).flatten()]
        assert torch.allclose(active.overlaps(moved).float(), null[shift - 1], atol=1e-4)


def lit_of(active):
    lit = torch.zeros(active.samples, active.units, active.cells)
    lit[active.sample, active.unit, active.cell] = 1.0
    return lit


@pytest.mark.parametrize(("draws", "level", "most"), [(99, 0.05, 0.065), (9, 0.1, 0.12)])
def test_under_the_null_p_values_are_not_too_small(draws, level, most):
    shares = []
    for seed in range(20):
        active, areas = noise(seed=seed)
        p = p_values(active.overlaps(areas), shuffled_overlaps(active, areas, rng=named_rng(seed, "x"), draws=draws))
        shares.append((p <= level).double().mean())
    assert float(torch.stack(shares).mean()) < most


def test_false_discovery_rates_are_those_of_benjamini_and_hochberg():
    p = torch.tensor([0.01, 0.04, 0.03, float("nan"), 0.2], dtype=torch.float64)
    q = benjamini_hochberg(p)
    assert torch.allclose(q[[0, 1, 2, 4]], torch.tensor([0.04, 0.16 / 3, 0.16 / 3, 0.2], dtype=torch.float64))
    assert q[3].isnan()


def test_concepts_of_a_function_work_without_colours():
    bright = CallableSegmenter(lambda images: images[:, :1] > 0.9, ["red channel"])
    session = Session(tiny_gan("planted"), vocabulary=Vocabulary([bright]), n=N)
    assert {row.unit for row in dissect(session, [PLANTED.layer]).found()} <= {
        PLANTED.red,
        PLANTED.yellow,
        PLANTED.copy,
    }
