import pytest
import torch
from torch import Tensor, nn

import gandissect
from gandissect.gan import LatentSpace
from gandissect.probing import building
from gandissect.probing.surveying import survey
from gandissect.testing import tiny_gan


class Dead(nn.Module):
    """A generator with a layer that nothing uses, one behind a rounding, and a counter of its runs."""

    def __init__(self, noisy: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(6, 48)
        self.useless = nn.Linear(48, 48)
        self.codes = nn.Linear(48, 48)
        self.last = nn.Conv2d(3, 3, 3, padding=1)
        self.noisy, self.runs = noisy, 0

    def forward(self, z: Tensor) -> Tensor:
        self.runs += 1
        hidden = self.first(z)
        self.useless(hidden)
        with torch.no_grad():
            codes = self.codes(hidden)
        mixed = hidden + codes.detach()
        if self.noisy:
            mixed = mixed + torch.randn_like(mixed)
        image: Tensor = self.last(mixed.view(-1, 3, 4, 4))
        return image


def test_a_survey_tells_what_the_output_depends_on() -> None:
    seen = survey(Dead().eval(), lambda net, x: net(x), torch.randn(2, 6))
    assert [call.name for call in seen.calls] == ["first", "useless", "codes", "last"]
    assert seen.effective == {"first", "last"}
    assert seen.sensitive
    assert seen.repeatable


def test_a_survey_notices_random_numbers() -> None:
    assert not survey(Dead(noisy=True), lambda net, x: net(x), torch.randn(2, 6)).repeatable


def test_the_effort_of_a_convolution_is_counted_per_sample() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1))
    seen = survey(net, lambda net, x: net(x), torch.randn(2, 8, 10, 10))
    multiplications = 16 * 8 * 9 * 100
    assert multiplications <= seen.effort <= 2 * multiplications


def test_a_survey_keeps_no_activations() -> None:
    nodes: list[object] = []

    def run(_net: nn.Module, x: Tensor) -> Tensor:
        squared = x**2
        nodes.append(squared.grad_fn)
        return squared

    run(nn.Identity(), torch.randn(2, 3, requires_grad=True))
    survey(nn.Identity(), run, torch.randn(2, 3))
    kept = [getattr(node, "_saved_self").numel() for node in nodes]  # noqa: B009  # torch's own name, unknown to its stubs
    assert kept == [6, 0]


def test_a_large_network_of_large_images_runs_on_one_sample_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "AFFORDABLE", 0.0)
    net = nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.Conv2d(3, 3, 1), nn.Upsample(scale_factor=192.0))
    sizes: list[int] = []
    with net.register_forward_hook(lambda _net, _args, images: sizes.append(len(images))):
        gan = gandissect.wrap(net, latent=LatentSpace("z", (3,)))
    assert gan.generator.image_shape == (3, 192, 192)
    assert set(sizes) == {1}


@pytest.mark.parametrize("kind", ["vector", "random"])
def test_a_network_too_large_to_edit_layer_by_layer_is_described_alike(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = tiny_gan(kind)
    monkeypatch.setattr(building, "AFFORDABLE", 0.0)
    told = tiny_gan(kind)
    assert told.generator.layers == tried.generator.layers
    assert told.capabilities == tried.capabilities
    assert "large" in told.opening.notes[-1]


def test_a_large_network_runs_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "AFFORDABLE", 0.0)
    net = Dead()
    editable = {
        info.name: info.editable for info in gandissect.wrap(net, latent=LatentSpace("z", (6,))).generator.layers
    }
    assert editable == {"first": True, "useless": False, "codes": True, "last": True}
    assert (
        net.runs <= 5
    )  # one sample, the survey, then a reference and a trial of the two layers that no gradient reaches
