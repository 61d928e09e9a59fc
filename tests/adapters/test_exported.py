"""Archives of torch.export: static and dynamic ones read like live modules at any batch size; nothing of them is evaluated."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gandissect_adapters.exported import ExportedAdapter
from small_gans import (
    DCGAN_LAYERS,
    Conditional,
    Critic,
    Dcgan,
    Noisy,
    Residual,
    edits_agree,
    gradients_agree,
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


def save(network: nn.Module, path: Path, *example: Tensor, dynamic: bool = False) -> Path:
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in example) if dynamic else None
    torch.export.save(torch.export.export(network, example, dynamic_shapes=shapes), str(path))
    return path


def opened(path: Path, **hints: object) -> Networks:
    return ExportedAdapter().open(peek(path), Hints(**hints))


@pytest.fixture(scope="module")
def eager() -> nn.Module:
    return trained(Dcgan())


@pytest.fixture(scope="module", params=[False, True], ids=["static", "dynamic"])
def networks(request: pytest.FixtureRequest, eager: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return opened(save(eager, tmp_path_factory.mktemp("pt2") / "gan.pt2", Z[:2], dynamic=request.param))


def test_every_layer_reads_as_in_the_live_module(networks: Networks, eager: nn.Module) -> None:
    layers_agree(networks.generator, eager, Z)


def test_an_edit_changes_the_image_as_in_the_live_module(networks: Networks, eager: nn.Module) -> None:
    edits_agree(networks.generator, eager, Z)


def test_gradients_equal_those_of_the_live_module(networks: Networks, eager: nn.Module) -> None:
    gradients_agree(networks.generator, eager, Z)


def test_weights_keep_their_names(networks: Networks, eager: nn.Module) -> None:
    state = networks.generator.state_dict()
    for name, tensor in eager.state_dict().items():
        torch.testing.assert_close(state[name], tensor)
    assert [type(networks.generator.get_submodule(name)) for name in DCGAN_LAYERS] == [
        type(part) for part in eager.main
    ]


def test_the_latent_is_told_and_the_output_verified(networks: Networks) -> None:
    assert networks.latent.shape == (12, 1, 1)
    assert networks.mismatch is not None and networks.mismatch < 1e-5
    assert "equals torch.export's own output" in networks.verification


@pytest.mark.parametrize("dynamic", [False, True])
def test_blocks_and_functional_operations_are_layers(dynamic: bool, tmp_path: Path) -> None:
    eager, z = trained(Residual()), torch.randn(4, 10)
    generator = opened(save(eager, tmp_path / "gan.pt2", z[:2], dynamic=dynamic)).generator
    torch.testing.assert_close(generator(z), eager(z), atol=1e-5, rtol=0)
    assert {"blocks.0.conv", "blocks.1.add_1", "blocks.1.relu_1"} <= {name for name, _ in generator.named_modules()}
    mine, truth = (with_edit(net, "blocks.0.conv", torch.zeros_like, z) for net in (generator, eager))
    torch.testing.assert_close(mine, truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_network_that_draws_noise_is_verified_with_the_same_noise(dynamic: bool, tmp_path: Path) -> None:
    networks = opened(save(trained(Noisy()), tmp_path / "gan.pt2", torch.randn(3, 8), dynamic=dynamic))
    assert networks.mismatch is not None and networks.mismatch < 1e-5
    assert networks.generator(torch.randn(7, 8)).shape == (7, 1, 8, 8)


def test_labels_are_found_by_their_embedding(tmp_path: Path) -> None:
    eager, z, labels = trained(Conditional()), torch.randn(3, 8), torch.tensor([0, 4, 2])
    networks = opened(save(eager, tmp_path / "gan.pt2", z, labels, dynamic=True))
    assert networks.num_classes == 5 and networks.latent.shape == (8,)
    torch.testing.assert_close(networks.generator(z, labels), eager(z, labels))


def test_a_discriminator_opens_beside_a_generator_only(tmp_path: Path) -> None:
    eager, images = trained(Critic()), torch.rand(4, 3, 16, 16) * 2 - 1
    path = save(eager, tmp_path / "d.pt2", images)
    with pytest.raises(NotOpened, match="only a discriminator"):
        opened(path)
    found = ExportedAdapter().open_discriminator(peek(path), Hints(), Networks(), (3, 16, 16))
    torch.testing.assert_close(found.discriminator(images), eager(images))


def test_the_core_finds_layers_edits_and_gradients(eager: nn.Module, tmp_path: Path) -> None:
    gan = gandissect.open(save(eager, tmp_path / "gan.pt2", Z[:2]), device="cpu")
    assert gan.opening.adapter == "export"
    assert [layer.name for layer in gan.generator.layers] == DCGAN_LAYERS
    assert gan.capabilities.edits and gan.capabilities.gradients


def rewritten(path: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """The archive with its model.json changed."""
    target = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as sink:
        for record in source.namelist():
            content = source.read(record)
            if record.endswith("models/model.json"):
                model = json.loads(content)
                change(model)
                content = json.dumps(model).encode()
            sink.writestr(record, content)
    return target


def test_an_operator_that_is_not_pure_is_refused(eager: nn.Module, tmp_path: Path) -> None:
    def change(model: dict) -> None:
        model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    path = rewritten(save(eager, tmp_path / "gan.pt2", Z[:2]), change)
    with pytest.raises(UnsafeCheckpoint, match="from_file"):
        opened(path)


def test_a_python_target_is_refused(eager: nn.Module, tmp_path: Path) -> None:
    def change(model: dict) -> None:
        model["graph_module"]["graph"]["nodes"][0]["target"] = "os.system"

    with pytest.raises(UnsafeCheckpoint, match=r"os\.system"):
        opened(rewritten(save(eager, tmp_path / "gan.pt2", Z[:2]), change))


@pytest.mark.parametrize("where", ["size", "guard"])
def test_strings_that_would_be_evaluated_are_not(where: str, eager: nn.Module, tmp_path: Path) -> None:
    target = tmp_path / "written"
    code = f"__import__('pathlib').Path({str(target)!r}).touch()"

    def change(model: dict) -> None:
        if where == "guard":
            model["guards_code"] = [code]
        else:
            sizes = model["graph_module"]["graph"]["tensor_values"]["z"]["sizes"]
            sizes[0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}

    networks = opened(rewritten(save(eager, tmp_path / "gan.pt2", Z[:2], dynamic=True), change))
    assert not target.exists()
    assert networks.verification.startswith("not verified") and networks.mismatch is None
    torch.testing.assert_close(networks.generator(Z), eager(Z), atol=1e-5, rtol=0)


def test_a_truncated_archive_gives_a_sentence(eager: nn.Module, tmp_path: Path) -> None:
    path = save(eager, tmp_path / "gan.pt2", Z[:2])
    seen = peek(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(NotOpened, match=r"gan\.pt2 is damaged"):
        ExportedAdapter().open(seen, Hints())
