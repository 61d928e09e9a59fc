"""Discriminators in files of their own: attention, LayerNorm over maps, classes beside the score, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gandissect_adapters.families.residual.caogang import CifarGenerator
from gandissect_adapters.families.residual.ops import QUERY_KEY_VALUE, SelfAttention
from torch import Tensor, nn

import gandissect
from gandissect.errors import NotOpened
from gandissect.gan import Discriminator


class HeadFirst(nn.Module):
    """Images [N, 3, 32, 32] to scores [N, 1]; the last layer is registered first, LayerNorm goes over whole maps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16 * 8 * 8, 1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(8, 16, 4, 2, 1), nn.LayerNorm([16, 8, 8]), nn.LeakyReLU(0.2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.head(self.body(x).flatten(1))
        return score


def attentive() -> nn.Sequential:
    """z [N, 8, 1, 1] to images [N, 3, 16, 16], with attention on the 8×8 map."""
    block = SelfAttention(16, names=QUERY_KEY_VALUE, bias=True, gate_shape=(1,))
    return nn.Sequential(
        nn.ConvTranspose2d(8, 32, 4), nn.BatchNorm2d(32, momentum=None), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16, momentum=None), nn.ReLU(),
        block, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def classifying(score: int) -> nn.Sequential:
    """Images [N, 3, 32, 32] to [N, 6, 1, 1]: five classes that share a direction, and a score of its own."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 6, 8),
    )  # fmt: skip
    weight = torch.randn(6, 16, 8, 8) * 0.1
    weight[torch.arange(6) != score] += torch.randn(16, 8, 8) * 0.1
    net.load_state_dict({"4.weight": weight}, strict=False)
    return net


@pytest.fixture
def maker(tmp_path: Path) -> Path:
    """A file of a generator of 32×32 RGB images, which a family opens."""
    torch.save(CifarGenerator(6, 4).state_dict(), tmp_path / "gen.pth")
    return tmp_path / "gen.pth"


def judged(maker: Path, judge: nn.Module, **assume: str) -> Discriminator:
    """The discriminator as it is read back from a file beside the generator's."""
    file = maker.with_name("disc.pth")
    torch.save(judge.state_dict(), file)
    options = {name.replace("_", "-"): value for name, value in assume.items()}
    gan = gandissect.open(maker, discriminator=file, assume=options, device="cpu")
    assert gan.discriminator is not None
    return gan.discriminator


@torch.no_grad()
def test_a_head_that_was_registered_first_runs_last_behind_layernorm_over_maps(maker: Path) -> None:
    net = HeadFirst()
    net.body[3].weight.normal_(1.0, 0.5)  # type: ignore[union-attr,operator]  # the LayerNorm
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(judged(maker, net)(x), net(x).flatten(), atol=1e-5)


@pytest.mark.parametrize("score", [0, 2, 5])
@torch.no_grad()
def test_the_output_beside_the_classes_is_the_score(maker: Path, score: int) -> None:
    net = classifying(score)
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(judged(maker, net)(x), net(x)[:, score].flatten(), atol=1e-5)


@torch.no_grad()
def test_outputs_that_are_all_alike_need_a_word_of_the_user(maker: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 6, 16))
    with pytest.raises(NotOpened, match=r"6 numbers per image.*--assume discriminator-unit=0"):
        judged(maker, net)
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(judged(maker, net, discriminator_unit="4")(x), net(x)[:, 4].flatten(), atol=1e-5)


@torch.no_grad()
def test_a_stack_with_self_attention_draws_its_own_images(tmp_path: Path) -> None:
    net = attentive().train()
    net[6].gamma.fill_(0.7)  # type: ignore[union-attr,operator]  # the gate
    for _ in range(20):
        net(torch.randn(128, 8, 1, 1))
    torch.save(net.eval().state_dict(), tmp_path / "netG.pth")
    gan = gandissect.open(tmp_path / "netG.pth", device="cpu")
    z = torch.randn(3, 8)
    assert torch.allclose(gan.generator(z), net(z[:, :, None, None]), atol=1e-5)
    assert [info.name for info in gan.generator.main_layers()] == ["2", "5", "6"]
    assert gan.generator.layer("6").shape == (16, 8, 8)


def test_a_discriminator_alone_is_refused_with_what_it_takes_and_what_to_type(tmp_path: Path) -> None:
    torch.save(HeadFirst().state_dict(), tmp_path / "disc.pth")
    with pytest.raises(
        NotOpened, match=r"1 number per image, for images of 32×32 and 3 channels.*--discriminator \S+disc"
    ):
        gandissect.open(tmp_path / "disc.pth", device="cpu")


STRANGERS = (
    ("acgan-D-milad", "discriminator.pt", "discriminator.9", "10"),
    ("sagan-D-oneeyed", "D.pth", "net.4", ""),
    ("sn-D-flowx08", "discriminator_celeba_GANSN.pt", "dcmodel.7", ""),
)


@pytest.mark.parametrize(("slug", "file", "layer", "unit"), STRANGERS, ids=[row[0] for row in STRANGERS])
def test_a_strangers_discriminator_judges_the_images_of_a_generator_of_its_size(
    shared: Path, maker: Path, slug: str, file: str, layer: str, unit: str
) -> None:
    path = shared / "checkpoints" / slug / file
    if not path.is_file():
        pytest.skip(f"checkpoints/{slug} is not in the shared folder")
    gan = gandissect.open(maker, discriminator=path, device="cpu")
    assert gan.discriminator is not None
    assert gan.capabilities.discriminator_gradients
    assert layer in [info.name for info in gan.discriminator.main_layers()]
    assert len(set(gan.discriminator(torch.randn(4, 3, 32, 32).tanh()).tolist())) == 4
    chosen = {known.name: known.value for known in gan.opening.assumptions}
    assert chosen.get("discriminator unit", "") == unit
    with pytest.raises(NotOpened, match="holds a discriminator, not a generator"):
        gandissect.open(path, device="cpu")


def test_a_trunk_whose_head_is_another_network_is_refused_in_a_sentence(maker: Path) -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 16), nn.BatchNorm2d(16))
    with pytest.raises(NotOpened, match="ends in '3', 16 units of a trunk"):
        judged(maker, trunk)


@torch.no_grad()
def test_a_critic_of_odd_kernels_with_spectral_norm_judges_as_before(maker: Path) -> None:
    spectral = nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(
        spectral(nn.Conv2d(3, 8, 5, 2, 2)), nn.LeakyReLU(0.2), spectral(nn.Conv2d(8, 12, 5, 2, 2)), nn.LeakyReLU(0.2),
        spectral(nn.Conv2d(12, 16, 3, 1, 1)), nn.LeakyReLU(0.2), nn.Flatten(), spectral(nn.Linear(16 * 64, 1)),
    ).eval()  # fmt: skip
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(judged(maker, net)(x), net(x).flatten(), atol=1e-5)
