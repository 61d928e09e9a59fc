"""Planted discriminators and latents: the rule, its threshold, the coordinate; noise yields neither rule nor headline."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from gandissect_plugins.surrogates import (
    Features,
    Importances,
    Judge,
    Surrogates,
    ablation,
    explain_scores,
    fit_linear,
    fit_tree,
    grouped,
    importances,
    permutation,
    shapley,
)
from gandissect_plugins.surrogates.rules import Condition, in_words
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Section, Text
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.testing import tiny_gan, tiny_session

SIDE, DIM, LIGHT = 16, 8, 5
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]
CUT = 0.31


class Curtain(nn.Module):
    """Latent [N, 8] to [N, 3, 16, 16]: a red curtain from the left as wide as z[0] says, grey of brightness z[5], stripes for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1, bias=False)
        stripes = torch.linspace(0, 3.14, SIDE)[None] * torch.arange(1, DIM + 1)[:, None]
        self.register_buffer("stripes", torch.cos(2 * stripes))
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, z: Tensor) -> Tensor:
        texture = 0.02 * (z[:, :, None] * self.stripes).sum(1)  # [N, SIDE], zero mean over the rows of a picture
        grey = (
            (0.25 * z[:, LIGHT, None, None, None] + texture[:, None, :, None]).expand(-1, 3, -1, SIDE).clamp(-0.9, 0.9)
        )
        columns = (torch.arange(SIDE) + 0.5) / SIDE
        curtain = columns[None] < torch.sigmoid(z[:, :1])
        red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None]
        image: Tensor = self.mix(torch.where(curtain[:, None, None], red.expand(len(z), 3, SIDE, SIDE), grey))
        return image


class Light(Curtain):
    """The same without a curtain."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(torch.cat([torch.full_like(z[:, :1], -9.0), z[:, 1:]], 1))


class Threshold(nn.Module):
    """Says real where red covers more than ``CUT`` of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(9.0))

    def forward(self, images: Tensor) -> Tensor:
        logit: Tensor = self.slope * (red(images).float().mean((1, 2, 3), keepdim=False)[:, None] - CUT)
        return logit


class Chaos(nn.Module):
    """A logit that has nothing to do with anything that can be named."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * SIDE * SIDE, generator=torch.Generator().manual_seed(seed)))

    def forward(self, images: Tensor) -> Tensor:
        logit: Tensor = torch.sin(1e3 * (images.flatten(1).double() @ self.weight.double()))[:, None].float()
        return logit


def red(images: Tensor) -> Tensor:
    return (images[:, :1] > 0.95) & (images[:, 1:2] < -0.95)


def gan_of(generator: nn.Module, critic: nn.Module | None) -> Gan:
    networks = Networks(
        generator.eval(),
        critic and critic.eval(),
        LatentSpace("z", (DIM,)),
        output_range=(-1.0, 1.0),
        discriminator_output="logit",
    )
    return build_gan(networks, name="planted", opening=Opening("testing", "made for tests"))


def sections_of(generator: nn.Module, critic: nn.Module | None, *, seed: int = 0, n: int = 400) -> list[Section]:
    vocabulary = Vocabulary([CallableSegmenter(red, ["curtain"])])
    session = Session(gan_of(generator, critic), vocabulary=vocabulary, n=n, seed=seed)
    analyzer = Surrogates()
    session.prepare(analyzer.wants(session))
    with session.borrowed():
        return list(analyzer.run(session))


def picture(values: np.ndarray, *names: str) -> Features:
    return Features(
        names or tuple(f"f{i}" for i in range(values.shape[1])), values, (True,) * values.shape[1], "concepts"
    )


def test_a_planted_threshold_is_found_with_its_concept_and_its_place() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((600, 5))
    found = explain_scores(picture(values), 9 * (values[:, 2] - CUT), np.arange(600) < 360, Judge(240, rng))
    assert found.tree.used == {2}
    assert found.tree.estimator.tree_.threshold[0] == pytest.approx(CUT, abs=0.02)
    assert found.fidelity.value > 0.9
    assert found.fidelity.p < 1e-6
    assert {rule.yes: rule.words for rule in found.said}[True].startswith("f2 is over 31 % of the picture")


def test_the_report_says_the_rule_of_a_planted_discriminator() -> None:
    section = sections_of(Curtain(), Threshold())[0]
    said = " ".join(block.markdown for block in section.blocks if isinstance(block, Text))
    assert (
        "curtain is over 28 % of the picture, the discriminator says *real*" in said
    )  # between 4 and 5 of 16 columns, as 31 % is


def test_a_property_that_orders_samples_like_a_concept_is_left_out_and_named() -> None:
    said = [block.markdown for block in sections_of(Curtain(), Threshold())[0].blocks if isinstance(block, Text)]
    assert any("redness (as curtain)" in text or "redness, " in text for text in said)


def test_a_rule_is_no_headline_where_the_discriminator_may_be_untrained() -> None:
    assert sections_of(Curtain(), Threshold())[0].findings == ()  # one weight: shuffled copies of it are the same


@pytest.mark.parametrize("seed", SEEDS)
def test_a_discriminator_that_concepts_say_nothing_of_yields_no_rule(seed: int) -> None:
    section, _, importance = sections_of(Curtain(), Chaos(seed), seed=seed)
    assert section.findings == ()
    assert isinstance(section.blocks[0], Text)
    assert "No rule beats the baseline" in section.blocks[0].markdown
    assert "concepts does not explain its logit" in section.summary
    assert "logit" not in importance.summary + " ".join(b.markdown for b in importance.blocks if isinstance(b, Text))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_generator_has_no_coordinate_that_is_named_alone(seed: int) -> None:
    session = Session(tiny_gan("random", seed=seed), n=200, seed=seed)
    session.prepare(Surrogates().wants(session))
    assert [finding.text for section in Surrogates().run(session) for finding in section.findings] == []


def test_the_coordinate_that_alone_drives_brightness_is_named() -> None:
    findings = sections_of(Light(), None)[2].findings
    assert any(f"z[{LIGHT}] alone drives brightness" in finding.text for finding in findings)


def of_one_driver() -> tuple[Importances, int]:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((500, 12))
    target = 2 * rows[:, 7] + 0.3 * rng.standard_normal(500)
    model = fit_linear(rows[:300], target[:300, None])[0]
    return importances(model, rows[300:], target[300:], [(i,) for i in range(12)], rows[:300], rng), 7


def test_the_feature_that_alone_drives_the_target_is_first_in_all_three_ways() -> None:
    found, driver = of_one_driver()
    assert {int(values.argmax()) for values in found.values.values()} == {driver}
    assert found.beyond(driver)
    assert found.order[0] == driver


def test_no_other_feature_is_beyond_chance() -> None:
    found, driver = of_one_driver()
    assert [i for i in range(12) if found.beyond(i)] == [driver]


def of_tree() -> tuple[object, np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    rng = np.random.default_rng(1)
    rows = rng.random((400, 4))
    target = np.where(rows[:, 0] > 0.5, 2.0, 0.0) + np.where((rows[:, 1] > 0.3) & (rows[:, 2] > 0.4), 1.5, 0.0)
    tree = fit_tree(rows[:300], target[:300])
    assert tree.used >= {0, 1, 2}
    return tree, rows[300:312], rows[:40], [(0,), (1, 3), (2,)]


def test_shapley_values_of_a_tree_add_up_to_its_prediction_minus_the_mean() -> None:
    tree, rows, background, groups = of_tree()
    shares, _ = shapley(tree, rows, background, groups, np.random.default_rng(0))  # type: ignore[arg-type]
    expected = tree.predict(rows) - tree.predict(background).mean()  # type: ignore[attr-defined]
    np.testing.assert_allclose(shares.sum(1), expected, atol=1e-5)


def test_sampled_shapley_values_are_those_of_all_coalitions_within_their_errors() -> None:
    tree, rows, background, groups = of_tree()
    shares, errors = shapley(tree, rows, background, groups, np.random.default_rng(0))  # type: ignore[arg-type]

    def worth(row: np.ndarray, members: tuple[int, ...]) -> float:
        mixed = background.copy()
        columns = [column for member in members for column in groups[member]]
        mixed[:, columns] = row[columns]
        return float(tree.predict(mixed).mean())  # type: ignore[attr-defined]

    exact = np.zeros_like(shares)
    for place, row in enumerate(rows):
        for group in range(3):
            rest = [other for other in range(3) if other != group]
            for size in range(3):
                for members in combinations(rest, size):
                    weight = factorial(size) * factorial(2 - size) / factorial(3)
                    exact[place, group] += weight * (worth(row, (*members, group)) - worth(row, members))
    assert (np.abs(shares - exact) <= 5 * errors + 1e-6).all()


def test_shapley_values_of_a_linear_fit_are_exact() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 6))
    model = fit_linear(rows, (rows @ rng.standard_normal(6))[:, None])[0]
    shares, errors = shapley(model, rows[:9], rows[9:], [(0, 2), (1,), (3, 4, 5)], rng)
    np.testing.assert_allclose(shares.sum(1), model.predict(rows[:9]) - model.predict(rows[9:]).mean(), atol=1e-9)
    assert not errors.any()


def test_a_linear_fit_without_features_is_the_fit_to_the_others() -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((80, 6)) @ rng.standard_normal((6, 6))
    target = rows[:, 1] - rows[:, 4] + rng.standard_normal(80)
    model = fit_linear(rows, target[:, None])[0]
    kept = [0, 2, 3, 5]
    standard = (rows - rows.mean(0)) / rows.std(0)
    again = Ridge(alpha=model.penalty).fit(standard[:, kept], target)
    np.testing.assert_allclose(model.without((1, 4)).predict(rows), again.predict(standard[:, kept]), atol=1e-9)


def test_permutation_importance_is_that_of_scikit_learn() -> None:
    from sklearn.inspection import permutation_importance
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 3))
    target = rows @ np.array([2.0, 1.0, 0.0]) + 0.1 * rng.standard_normal(400)
    model = fit_linear(rows, target[:, None])[0]
    ours, _ = permutation(model, rows, target, [(0,), (1,), (2,)], rng, 60)
    theirs = permutation_importance(LinearRegression().fit(rows, target), rows, target, n_repeats=60, random_state=0)
    np.testing.assert_allclose(ours, theirs.importances_mean, rtol=0.1, atol=0.01)


def test_twins_hide_each_other_from_ablation_and_so_count_as_one_group() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 3))
    rows[:, 2] = rows[:, 0] + 0.01 * rng.standard_normal(400)
    model = fit_linear(rows[:300], rows[:300, :1])[0]
    assert grouped(rows) == [(0, 2), (1,)]
    apart, _ = ablation(model, rows[300:], rows[300:, 0], [(0,), (1,), (2,)])
    together, _ = ablation(model, rows[300:], rows[300:, 0], grouped(rows))
    assert apart.max() < 0.05
    assert together[0] > 0.9


def test_conditions_on_one_feature_become_a_range() -> None:
    conditions = (Condition(0, 0.1, True), Condition(0, 0.4, False), Condition(0, 0.2, True))
    assert in_words(conditions, picture(np.zeros((2, 1)), "sky")) == "sky is 20 to 40 % of the picture"


def test_a_guess_of_the_mean_explains_nothing_and_a_perfect_one_all() -> None:
    truth = np.random.default_rng(0).standard_normal(100)
    judge = Judge(100, np.random.default_rng(1))
    nothing, everything = judge.explained(truth, np.full(100, truth.mean())), judge.explained(truth, truth)
    assert (nothing.value, nothing.p) == (pytest.approx(0.0), 1.0)
    assert (everything.value, everything.p) == (pytest.approx(1.0), 0.001)


def test_without_a_discriminator_its_section_is_skipped_and_the_others_are_done() -> None:
    first, *others = sections_of(Curtain(), None)
    assert first.status == "skipped"
    assert "--discriminator" in first.summary
    assert [section.status for section in others] == ["done", "done"]


def test_a_silent_discriminator_is_a_reason_to_skip() -> None:
    critic = Threshold()
    critic.slope.data.zero_()
    section = sections_of(Curtain(), critic, n=64)[0]
    assert section.status == "skipped"
    assert "same score" in section.summary


def test_too_few_samples_are_a_reason_to_skip() -> None:
    session = tiny_session(n=20)
    assert [section.status for section in Surrogates().run(session)] == ["skipped"]
