"""A network whose make-up is planted must be found again from its state dict alone, exactly."""

import copy
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from gandissect_adapters.statedict import StateDictAdapter
from torch import Tensor, nn

from gandissect.adapter import Hints, Networks
from gandissect.errors import NotOpened, UnknownName
from gandissect.files.peek import peek

ADAPTER = StateDictAdapter()


def trained(net: nn.Module, *shape: int, uniform: bool = False, steps: int = 60) -> nn.Module:
    """``net`` with weights of a usual size, biased norms, and BatchNorm statistics of real training passes."""
    torch.manual_seed(1)
    for name, parameter in net.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0.0, 1.4 / parameter[0].numel() ** 0.5)
        elif name.endswith("weight"):
            nn.init.normal_(parameter, 1.0, 0.2)
        else:
            nn.init.normal_(parameter, 0.0, 0.2)
    net.train()
    with torch.no_grad():
        for _ in range(steps):
            net(torch.rand(48, *shape) * 2 - 1 if uniform else torch.randn(48, *shape))
    return net.eval()


def deconv_net(
    plan: list[tuple[int, int, int, int]], act: nn.Module, z: int = 24, last: nn.Module | None = None
) -> nn.Module:
    """ConvTranspose, BatchNorm, activation per (out, kernel, stride, padding); only the last has neither."""
    layers: list[nn.Module] = []
    units = z
    for index, (out, kernel, stride, padding) in enumerate(plan):
        end = index == len(plan) - 1
        layers.append(nn.ConvTranspose2d(units, out, kernel, stride, padding, bias=end))
        layers += [] if end else [nn.BatchNorm2d(out), copy.deepcopy(act)]
        units = out
    layers.append(last or nn.Tanh())
    return nn.Sequential(OrderedDict(main=nn.Sequential(*layers)))


class Upsampling(nn.Module):
    """A generator in the layout of eriklindernoren/PyTorch-GAN, with its BatchNorm eps of 0.8."""

    def __init__(self, mode: str = "nearest", act: nn.Module | None = None, eps: float = 0.8) -> None:
        super().__init__()
        act = act or nn.LeakyReLU(0.2)
        self.l1 = nn.Sequential(nn.Linear(20, 32 * 49))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(32), nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32, eps),
            copy.deepcopy(act), nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(32, 16, 3, 1, 1), nn.BatchNorm2d(16, eps),
            copy.deepcopy(act), nn.Conv2d(16, 1, 3, 1, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.conv_blocks(self.l1(z).view(len(z), 32, 7, 7))
        return out


DCGAN32 = [(64, 4, 1, 0), (32, 4, 2, 1), (16, 4, 2, 1), (3, 4, 2, 1)]
COURSE = [(64, 3, 2, 0), (32, 4, 1, 0), (16, 3, 2, 0), (1, 4, 2, 0)]
SEVEN = [(64, 7, 1, 0), (32, 4, 2, 1), (1, 4, 2, 1)]


def opened(net: nn.Module | dict[str, object], folder: Path, name: str = "netG.pt", **assume: str) -> Networks:
    path = folder / name
    torch.save(net.state_dict() if isinstance(net, nn.Module) else net, path)
    return ADAPTER.open(peek(path), Hints(assume={key.replace("_", "-"): value for key, value in assume.items()}))


def same(networks: Networks, net: nn.Module, *shape: int) -> bool:
    z = torch.randn(6, *shape)
    assert networks.generator is not None
    with torch.no_grad():
        return torch.allclose(networks.generator(z).reshape(-1), net(z).reshape(-1), atol=1e-5)


@pytest.mark.parametrize(
    "plan", [pytest.param(DCGAN32, marks=pytest.mark.slow), COURSE, SEVEN], ids=["dcgan32", "coursera", "seven"]
)
@pytest.mark.parametrize(
    "act",
    [
        nn.ReLU(),
        nn.LeakyReLU(0.2),
        pytest.param(nn.LeakyReLU(0.1), marks=pytest.mark.slow),
        nn.Tanh(),
        pytest.param(nn.ELU(), marks=pytest.mark.slow),
    ],
    ids=["relu", "l.2", "l.1", "tanh", "elu"],
)
def test_stride_padding_and_activation_are_found(
    plan: list[tuple[int, int, int, int]], act: nn.Module, tmp_path: Path
) -> None:
    net = trained(deconv_net(plan, act), 24, 1, 1)
    found = opened(net, tmp_path)
    assert same(found, net, 24, 1, 1)
    assert found.mismatch is not None
    assert found.mismatch < 0.05


def test_a_uniform_prior_is_found(tmp_path: Path) -> None:
    net = trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1, uniform=True)
    found = opened(net, tmp_path)
    assert found.latent is not None
    assert found.latent.prior == "uniform"
    assert same(found, net, 24, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_and_the_family_eps_are_found(mode: str, tmp_path: Path) -> None:
    net = trained(Upsampling(mode), 20)
    found = opened(net, tmp_path)
    assert same(found, net, 20)
    assert found.family.startswith("PyTorch-GAN")
    assert any(a.name == "eps" and "0.8" in a.value for a in found.assumptions)


def test_without_metadata_the_layout_is_still_found(tmp_path: Path) -> None:
    net = trained(deconv_net(DCGAN32, nn.ReLU()), 24, 1, 1)
    found = opened({"state_dict": dict(net.state_dict()), "epoch": 3}, tmp_path)
    assert same(found, net, 24, 1, 1)


def test_safetensors_and_half_precision_open(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    net = trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    net.load_state_dict(halves)
    save_file(halves, tmp_path / "g.safetensors")
    found = ADAPTER.open(peek(tmp_path / "g.safetensors"), Hints())
    assert same(found, net, 24, 1, 1)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.generator.",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("module.", "_orig_mod.", "generator.", "netG.")),
    ],
)
def test_prefixes_of_every_key_are_taken_off_or_kept_as_names(prefix: str, tmp_path: Path) -> None:
    net = trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1)
    found = opened({prefix + key: value for key, value in net.state_dict().items()}, tmp_path)
    assert same(found, net, 24, 1, 1)


def test_averaged_weights_come_first_and_it_is_said(tmp_path: Path) -> None:
    net, other = (trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1, steps=20) for _ in range(2))
    other.main[0].weight.data.add_(0.1)
    content = {
        "g": other.state_dict(),
        "g_ema": net.state_dict(),
        "g_optim": {"state": {0: {"exp_avg": torch.ones(4)}}},
    }
    found = opened(content, tmp_path, "model.pt")
    assert same(found, net, 24, 1, 1)
    assert any("averaged" in note for note in found.notes)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("spectral", marks=pytest.mark.slow),
        "spectral-new",
        pytest.param("weight", marks=pytest.mark.slow),
        pytest.param("weight-new", marks=pytest.mark.slow),
    ],
)
def test_reparametrised_weights_are_folded(kind: str, tmp_path: Path) -> None:
    net = trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1, steps=1)
    wrap = {
        "spectral": torch.nn.utils.spectral_norm, "spectral-new": torch.nn.utils.parametrizations.spectral_norm,
        "weight": torch.nn.utils.weight_norm, "weight-new": torch.nn.utils.parametrizations.weight_norm,
    }[kind]  # fmt: skip
    wrap(net.main[0])
    wrap(net.main[3])
    net.train()
    with torch.no_grad():
        for _ in range(60):
            net(torch.randn(48, 24, 1, 1))
    found = opened(net.eval(), tmp_path)
    assert same(found, net, 24, 1, 1)
    assert any("folded" in note for note in found.notes)


def test_layers_keep_their_names_and_hooks_fire(tmp_path: Path) -> None:
    found = opened(trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1), tmp_path)
    assert found.generator is not None
    names = [name for name, module in found.generator.named_modules() if not list(module.children()) and name]
    assert names == [f"main.{i}" for i in range(8)]
    seen: list[str] = []
    for name in names:
        found.generator.get_submodule(name).register_forward_hook(lambda *_args, name=name: seen.append(name))
    found.generator(torch.randn(2, 24, 1, 1))
    assert seen == names
    assert not any(getattr(module, "inplace", False) for module in found.generator.modules())


def test_a_combined_file_gives_both_networks(tmp_path: Path) -> None:
    generator = trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1)
    critic = trained(
        nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(32 * 49, 1), nn.Sigmoid(),
        ), 1, 28, 28, uniform=True,
    )  # fmt: skip
    found = opened({"G": generator.state_dict(), "D": critic.state_dict()}, tmp_path, "both.pt")
    assert found.discriminator is not None
    assert found.discriminator_output == "probability"
    images = torch.rand(4, 1, 28, 28) * 2 - 1
    assert torch.allclose(found.discriminator(images), critic(images), atol=1e-5)


def test_a_separate_discriminator_is_sized_by_the_generator(tmp_path: Path) -> None:
    net = trained(deconv_net(COURSE, nn.ReLU()), 24, 1, 1)
    generator = opened(net, tmp_path)
    critic = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2), nn.BatchNorm2d(16), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2),
        nn.BatchNorm2d(32), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 4, 2),
    )  # fmt: skip
    trained(nn.Sequential(net, critic), 24, 1, 1)
    torch.save(critic.state_dict(), tmp_path / "D.pt")
    found = ADAPTER.open_discriminator(peek(tmp_path / "D.pt"), Hints(), generator, (1, 28, 28))
    images = torch.rand(4, 1, 28, 28) * 2 - 1
    assert found.discriminator is not None
    assert found.discriminator_output == "logit"
    assert torch.allclose(found.discriminator(images), critic(images), atol=1e-5)


def test_a_discriminator_of_another_gan_does_not_bend_the_generator(tmp_path: Path) -> None:
    net = trained(deconv_net(DCGAN32, nn.ReLU()), 24, 1, 1)
    critic = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 4)
    )  # takes 16x16; the generator gives that with an output padding that blurred statistics hardly tell
    for norm in (one for one in net.modules() if isinstance(one, nn.BatchNorm2d)):
        norm.running_var.mul_(torch.exp(0.2 * torch.randn_like(norm.running_var)))
    torch.save(net.state_dict(), tmp_path / "netG.pt")
    torch.save(critic.state_dict(), tmp_path / "D.pt")
    found = ADAPTER.open(peek(tmp_path / "netG.pt"), Hints(discriminator_path=tmp_path / "D.pt"))
    assert found.image_shape == (3, 32, 32)
    assert same(found, net, 24, 1, 1)


def test_an_mlp_opens_with_assumptions_that_can_be_overridden(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(10, 32), nn.LeakyReLU(0.2), nn.Linear(32, 784), nn.Sigmoid())
    found = opened(net, tmp_path, activation="lrelu0.2", output="sigmoid")
    assert same(found, net, 10)
    assert found.image_shape == (1, 28, 28)
    assert found.output_range == (0.0, 1.0)
    guessed = opened(net, tmp_path)
    assert not any(a.sure for a in guessed.assumptions if a.name == "activation")
    assert "not verified" in guessed.verification


def test_a_label_embedding_makes_it_conditional(tmp_path: Path) -> None:
    class Labelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.label_emb = nn.Embedding(5, 6)
            self.net = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 784), nn.Tanh())

        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            labels = torch.randint(0, 5, (len(z),)) if labels is None else labels
            out: Tensor = self.net(torch.cat([self.label_emb(labels) * 3, z], 1))
            return out

    net = trained(Labelled(), 14)
    net.label_emb.weight.data.mul_(3)
    found = opened(net, tmp_path)
    z, labels = torch.randn(5, 14), torch.arange(5)
    net.label_emb.weight.data.div_(3)
    assert found.num_classes == 5
    assert found.latent is not None
    assert found.latent.shape == (14,)
    assert found.generator is not None
    assert torch.allclose(found.generator(z, labels).flatten(1), net(z, labels), atol=1e-5)


def test_an_unknown_assumption_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean activation"):
        opened(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 784)), tmp_path, activatoin="relu")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"transformer.wte.weight": torch.zeros(9, 4), "lm_head.weight": torch.zeros(9, 4)}, "language model"),
        ({"0.weight": torch.zeros(6, 1, 5, 5), "2.weight": torch.zeros(10, 150)}, "classifier"),
        ({"main.0.weight": torch.zeros(8, 3, 4, 4), "main.2.weight": torch.zeros(1, 8, 4, 4)}, "--discriminator"),
        ({"epoch": 3, "loss": 0.5}, "no network"),
        ({"gamma": torch.ones(3)}, "cannot be opened"),
    ],
)
def test_what_is_no_generator_is_refused_in_a_sentence(
    content: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(NotOpened, match=sentence) as caught:
        opened(content, tmp_path, "x.pt")
    assert "\n" not in str(caught.value)


def test_nan_weights_are_refused_by_name(tmp_path: Path) -> None:
    net = deconv_net(SEVEN, nn.ReLU())
    net.main[3].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotOpened, match=r"main\.3\.weight"):
        opened(net, tmp_path)


def test_a_weight_without_numbers_is_refused_by_name(tmp_path: Path) -> None:
    state = deconv_net(SEVEN, nn.ReLU()).state_dict()
    state["main.0.weight"] = state["main.0.weight"][..., :0]
    with pytest.raises(NotOpened, match=r"main\.0\.weight"):
        opened(state, tmp_path)


def test_a_norm_whose_tensors_differ_in_length_is_refused_by_name(tmp_path: Path) -> None:
    state = deconv_net(SEVEN, nn.ReLU()).state_dict()
    state["main.1.weight"] = state["main.1.weight"][:1]
    with pytest.raises(NotOpened, match=r"'main\.1' differ in length"):
        opened(state, tmp_path)


def test_nothing_global_is_changed(tmp_path: Path) -> None:
    net = trained(deconv_net(SEVEN, nn.ReLU()), 24, 1, 1)
    torch.manual_seed(3)
    before, grad = torch.get_rng_state(), torch.is_grad_enabled()
    opened(net, tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert grad == torch.is_grad_enabled()


@pytest.mark.slow
def test_a_full_size_dcgan_opens_in_time(tmp_path: Path) -> None:
    plan = [(256, 4, 1, 0), (128, 4, 2, 1), (64, 4, 2, 1), (32, 4, 2, 1), (3, 4, 2, 1)]
    net = trained(deconv_net(plan, nn.ReLU(), z=100), 100, 1, 1, steps=30)
    started = time.process_time()
    found = opened(net, tmp_path)
    assert time.process_time() - started < 10.0
    assert same(found, net, 100, 1, 1)
