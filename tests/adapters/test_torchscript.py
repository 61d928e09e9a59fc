"""Archives of TorchScript: scripted, traced and frozen ones read like live modules, hostile ones never run."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_adapters.torchscript import TorchScriptAdapter
from small_gans import (
    DCGAN_LAYERS,
    BakedBatch,
    Conditional,
    Critic,
    Dcgan,
    Modulated,
    Residual,
    edits_agree,
    gradients_agree,
    layer_outputs,
    layers_agree,
    trained,
    with_edit,
)
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Hints, Networks
from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect.files.peek import peek

Z = torch.randn(5, 12, 1, 1, generator=torch.Generator().manual_seed(3))
# where the layers of Dcgan are in each kind of archive
NAMES = {
    "scripted": DCGAN_LAYERS,
    "frozen": [
        "conv_transpose2d_1", "batch_norm_1", "relu_1", "conv_transpose2d_2", "batch_norm_2", "leaky_relu_1",
        "conv_transpose2d_3", "tanh_1",
    ],
}  # fmt: skip
NAMES["traced"] = NAMES["scripted"]
NAMES["frozen trace"] = NAMES["frozen"]


def save(network: nn.Module, kind: str, path: Path, *example: Tensor) -> Path:
    script = torch.jit.script(network) if kind in ("scripted", "frozen") else torch.jit.trace(network, example)
    if kind.startswith("frozen"):
        script = torch.jit.freeze(script)
    script.save(str(path))
    return path


def opened(path: Path, **hints: object) -> Networks:
    return TorchScriptAdapter().open(peek(path), Hints(**hints))


@pytest.fixture(scope="module")
def eager() -> nn.Module:
    return trained(Dcgan())


@pytest.fixture(scope="module", params=["scripted", "traced", "frozen", "frozen trace"])
def case(
    request: pytest.FixtureRequest, eager: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Networks]:
    path = save(eager, request.param, tmp_path_factory.mktemp("ts") / "gan.ts", Z[:2])
    return request.param, opened(path)


def test_every_layer_reads_as_in_the_live_module(case: tuple[str, Networks], eager: nn.Module) -> None:
    kind, networks = case
    layers_agree(networks.generator, eager, Z, NAMES[kind])


def test_an_edit_changes_the_image_as_in_the_live_module(case: tuple[str, Networks], eager: nn.Module) -> None:
    kind, networks = case
    edits_agree(networks.generator, eager, Z, NAMES[kind])


def test_gradients_equal_those_of_the_live_module(case: tuple[str, Networks], eager: nn.Module) -> None:
    kind, networks = case
    gradients_agree(networks.generator, eager, Z, NAMES[kind])


def test_parameters_are_counted_and_trainable(case: tuple[str, Networks], eager: nn.Module) -> None:
    kind, networks = case
    parameters = list(networks.generator.parameters())
    assert sum(p.numel() for p in parameters) == sum(p.numel() for p in eager.parameters())
    assert all(p.requires_grad for p in parameters)
    if not kind.startswith("frozen"):
        assert set(networks.generator.state_dict()) >= {key for key, _ in eager.named_parameters()}


def test_the_latent_is_told_and_the_output_verified(case: tuple[str, Networks]) -> None:
    _, networks = case
    assert networks.latent.size == 12
    assert networks.mismatch is not None and networks.mismatch < 1e-5
    assert "equals TorchScript's own output" in networks.verification


def test_layers_are_torchs_own_modules_with_their_settings(case: tuple[str, Networks]) -> None:
    kind, networks = case
    layers = [networks.generator.get_submodule(name) for name in NAMES[kind]]
    assert isinstance(layers[3], nn.ConvTranspose2d) and layers[3].stride == (2, 2) and layers[3].padding == (1, 1)
    assert isinstance(layers[1], nn.BatchNorm2d)
    assert isinstance(layers[5], nn.LeakyReLU) and layers[5].negative_slope == pytest.approx(0.2)


def test_a_copy_runs_by_itself(case: tuple[str, Networks]) -> None:
    _, networks = case
    twin = copy.deepcopy(networks.generator)
    before = networks.generator(Z)
    with torch.no_grad():
        next(iter(twin.parameters())).zero_()
    torch.testing.assert_close(networks.generator(Z), before)
    assert not torch.allclose(twin(Z), before)


def test_train_and_eval_change_nothing(case: tuple[str, Networks]) -> None:
    _, networks = case
    before = networks.generator.eval()(Z)
    torch.testing.assert_close(networks.generator.train().eval()(Z), before)


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen"])
def test_functional_operations_between_submodules_are_layers(kind: str, tmp_path: Path) -> None:
    eager, z = trained(Residual()), torch.randn(3, 10)
    generator = opened(save(eager, kind, tmp_path / "gan.ts", z)).generator
    torch.testing.assert_close(generator(z), eager(z), atol=1e-5, rtol=0)
    kinds = {type(module).__name__ for module in generator.modules()}
    assert {"LeakyReLU", "ReLU", "Add", "Sigmoid"} <= kinds
    if kind != "frozen":
        assert "blocks.1.conv" in dict(generator.named_modules())
        edited = with_edit(generator, "blocks.0.conv", torch.zeros_like, z)
        torch.testing.assert_close(edited, with_edit(eager, "blocks.0.conv", torch.zeros_like, z), atol=1e-5, rtol=0)


@pytest.mark.parametrize("recorded", [1, 4])
@pytest.mark.parametrize("kind", ["traced", "frozen trace"])
def test_a_recorded_batch_size_does_not_bind(kind: str, recorded: int, tmp_path: Path) -> None:
    eager, z = trained(BakedBatch()), torch.randn(7, 6)
    networks = opened(save(eager, kind, tmp_path / "gan.ts", z[:recorded]))
    torch.testing.assert_close(networks.generator(z), eager(z), atol=1e-5, rtol=0)
    assert any(f"batch of {recorded}" in note for note in networks.notes)


def test_a_batch_size_that_cannot_be_replaced_is_run_in_pieces(tmp_path: Path) -> None:
    eager, z = trained(Modulated()), torch.randn(5, 6)
    networks = opened(save(eager, "traced", tmp_path / "gan.ts", z[:2]))
    torch.testing.assert_close(networks.generator(z), eager(z), atol=1e-5, rtol=0)
    assert any("run 2 at a time" in note for note in networks.notes)


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_labels_are_found_by_their_embedding(kind: str, tmp_path: Path) -> None:
    eager, z, labels = trained(Conditional()), torch.randn(3, 8), torch.tensor([0, 4, 2])
    networks = opened(save(eager, kind, tmp_path / "gan.ts", z, labels))
    assert networks.num_classes == 5 and networks.latent.shape == (8,)
    torch.testing.assert_close(networks.generator(z, labels), eager(z, labels))


def test_a_discriminator_alone_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = save(trained(Critic()), "scripted", tmp_path / "d.ts")
    with pytest.raises(NotOpened, match="only a discriminator"):
        opened(path)


def test_a_discriminator_opens_beside_a_generator(tmp_path: Path) -> None:
    eager, images = trained(Critic()), torch.rand(4, 3, 16, 16) * 2 - 1
    path = save(eager, "traced", tmp_path / "d.ts", images)
    found = TorchScriptAdapter().open_discriminator(peek(path), Hints(), Networks(), (3, 16, 16))
    torch.testing.assert_close(found.discriminator(images), eager(images))
    with pytest.raises(NotOpened, match=r"no discriminator of images \(1, 28, 28\)"):
        TorchScriptAdapter().open_discriminator(peek(path), Hints(), Networks(), (1, 28, 28))


def test_the_core_finds_layers_edits_and_gradients(eager: nn.Module, tmp_path: Path) -> None:
    path = save(eager, "frozen trace", tmp_path / "gan.ts", Z)
    gan = gandissect.open(path, device="cpu")
    assert gan.opening.adapter == "torchscript"
    assert [layer.name for layer in gan.generator.layers] == NAMES["frozen"]
    assert gan.capabilities.edits and gan.capabilities.gradients
    assert all(layer.editable for layer in gan.generator.layers)


class Saves(nn.Module):
    """Writes a file whenever it runs."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.fc = nn.Linear(4, 64)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z)
        torch.save(x, self.target)
        return x.view(-1, 1, 8, 8)


class MapsFile(nn.Module):
    """Creates a file whenever it runs."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.fc = nn.Linear(4, 64)

    def forward(self, z: Tensor) -> Tensor:
        return self.fc(z).view(-1, 1, 8, 8) + torch.from_file(self.target, True, 1)


class SavesOnLoad(nn.Module):
    """Writes a file when its archive is loaded."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), state[0])

    def forward(self, z: Tensor) -> Tensor:
        return z.view(-1, 1, 2, 2)


@pytest.mark.parametrize("hostile", [Saves, MapsFile, SavesOnLoad])
def test_a_hostile_archive_writes_no_file(hostile: type[nn.Module], tmp_path: Path) -> None:
    target = tmp_path / "written"
    torch.jit.script(hostile(str(target))).save(str(tmp_path / "bad.ts"))
    target.unlink(missing_ok=True)
    with pytest.raises(UnsafeCheckpoint, match=r"--trust"):
        opened(tmp_path / "bad.ts")
    assert not target.exists()


def test_the_attack_on_loading_is_real(tmp_path: Path) -> None:
    target = tmp_path / "written"
    torch.jit.script(SavesOnLoad(str(target))).save(str(tmp_path / "bad.ts"))
    target.unlink(missing_ok=True)
    torch.jit.load(str(tmp_path / "bad.ts"))
    assert target.exists()


def test_the_refused_operator_is_named(tmp_path: Path) -> None:
    torch.jit.script(Saves(str(tmp_path / "written"))).save(str(tmp_path / "bad.ts"))
    with pytest.raises(UnsafeCheckpoint, match="aten::save"):
        opened(tmp_path / "bad.ts")


def test_a_trusted_archive_runs_as_it_is_without_layers(tmp_path: Path) -> None:
    torch.jit.script(Saves(str(tmp_path / "written"))).save(str(tmp_path / "bad.ts"))
    networks = opened(tmp_path / "bad.ts", trust=True)
    assert networks.generator(torch.randn(2, 4)).shape == (2, 1, 8, 8)
    assert not list(networks.generator.children())
    assert any("no layers" in note for note in networks.notes)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_archive_gives_a_sentence(share: float, eager: nn.Module, tmp_path: Path) -> None:
    whole = save(eager, "scripted", tmp_path / "gan.ts")
    seen = peek(whole)
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(NotOpened, match=r"gan\.ts .*(damaged|readable)"):
        TorchScriptAdapter().open(seen, Hints())


def test_a_reference_archive_gives_its_recorded_activations(shared: Path) -> None:
    place = shared / "golden" / "analysis" / "dissection_fixed"
    if not (place / "features_check.npz").is_file():
        pytest.skip("no recorded activations")
    recorded = np.load(place / "features_check.npz")
    layers = [name for name in recorded.files if name.startswith("layer")]
    z = torch.from_numpy(np.load(place / "latents.npz")["z"][:8])
    generator = opened(place / "generator.ts").generator
    found = layer_outputs(generator, layers, z)
    for name in layers:
        truth = recorded[name]
        np.testing.assert_allclose(found[name][:, : truth.shape[1]].detach(), truth, atol=2e-5)
    np.testing.assert_allclose(generator(z).detach(), recorded["images"], atol=2e-5)


def test_every_reference_archive_opens(shared: Path) -> None:
    archives = sorted((shared / "golden" / "analysis").rglob("*.ts"))
    if not archives:
        pytest.skip("no reference archives")
    for path in archives:
        if "discriminator" in path.name:
            assert TorchScriptAdapter().open_discriminator(peek(path), Hints(), Networks(), (3, 32, 32)).mismatch < 1e-5
        else:
            assert opened(path).mismatch < 1e-5
