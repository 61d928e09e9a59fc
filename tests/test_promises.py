"""What every built-in analyzer promises, whatever it analyses."""

import json

import pytest
import torch

from gandissect.plugins import load_plugins
from gandissect.run import analyze
from gandissect.testing import check_analyzer, tiny_gan

ANALYZERS = load_plugins().analyzers()


@pytest.mark.parametrize("name", ANALYZERS)
def test_batch_size_changes_nothing_and_the_model_is_untouched(name: str) -> None:
    check_analyzer(ANALYZERS[name], kinds=("planted",))


@pytest.mark.slow
@pytest.mark.parametrize("name", ANALYZERS)
def test_the_same_holds_for_random_vector_and_grey_networks(name: str) -> None:
    check_analyzer(ANALYZERS[name], kinds=("random", "vector", "grey"))


@pytest.mark.parametrize("name", ANALYZERS)
def test_a_model_that_fails_in_the_middle_keeps_no_hook(name: str) -> None:
    gan = tiny_gan("random")
    module = gan.generator.module
    forward, calls = module.forward, []

    def failing(z: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise ArithmeticError("as planned")
        return forward(z)

    module.forward = failing  # type: ignore[method-assign]
    analyze(gan, [name], n=64, concepts=("colours",))
    assert not any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


@pytest.mark.parametrize("kind", ["random", "vector"])
def test_a_random_network_yields_no_unit_concept_finding(kind: str) -> None:
    for seed in range(3):
        report = analyze(tiny_gan(kind, seed=seed), ["dissection"], n=200)  # type: ignore[arg-type]
        assert [finding.text for section in report.sections for finding in section.findings] == []


@pytest.mark.slow
def test_without_a_discriminator_nothing_fails_and_skips_say_what_to_pass() -> None:
    report = analyze(tiny_gan(discriminator=False), n=64)
    assert [(section.title, section.summary) for section in report.failed] == []
    assert all("--" in section.summary for section in report.sections if section.status == "skipped")


def test_all_analyzers_share_one_pass() -> None:
    report = analyze(tiny_gan(), n=64)
    assert report.failed == ()
    assert json.dumps(report.to_dict())
    assert report.provenance.passes <= 2, "evidence that was not declared in wants() cost passes of its own"
