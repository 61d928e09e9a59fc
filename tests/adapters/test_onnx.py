"""ONNX graphs: exported ones read like live modules at any batch size, hostile ones are refused in a sentence."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from gandissect_adapters.graph.onnx import graph as onnx_graph
from gandissect_adapters.onnx import OnnxAdapter
from small_gans import (
    DCGAN_LAYERS,
    BakedBatch,
    Conditional,
    Critic,
    Dcgan,
    Modulated,
    Noisy,
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

onnx = pytest.importorskip("onnx")

Z = torch.randn(5, 12, 1, 1, generator=torch.Generator().manual_seed(3))


class Attention(nn.Module):
    """Self-attention over positions, added to what came in (SAGAN)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 2, 1)
        self.key = nn.Conv2d(channels, channels // 2, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.softmax(self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2), -1)
        return self.gamma * (self.value(x).flatten(2) @ weight.transpose(1, 2)).view(x.shape) + x


class Upsampler(nn.Module):
    """z [N, 8] to [N, 3, 32, 32] through most of what upsampling generators are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8 * 4 * 4)
        self.net = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(),
            Attention(8), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(8, 12, 3), nn.PReLU(12),
            nn.PixelShuffle(2), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.net(self.fc(z).view(-1, 8, 4, 4))


class Tokens(nn.Module):
    """z [N, 8] to [N, 3, 16, 16]: PixelNorm, layer normalisation, products of matrices, images put together of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 16 * 8)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Linear(8, 8)
        self.out = nn.Linear(8, 16 * 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-8)).view(-1, 16, 8)
        x = self.out(x + F.gelu(self.mlp(self.norm(x))))
        x = x.view(-1, 4, 4, 4, 4, 3).permute(0, 5, 1, 3, 2, 4)
        return torch.tanh(x.reshape(-1, 3, 16, 16))


class OneHot(nn.Module):
    """(z [N, 8], one-hot labels [N, 5]) to [N, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(13, 64)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(self.fc(torch.cat([z, label], 1)).view(-1, 1, 8, 8))


class Shift(nn.Module):
    """Images [N, 3, 24, 24] to the same, by a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 4, 2, 1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.again(F.relu(self.again(self.down(x)))))
        return torch.tanh(self.up(x))


def save(network: nn.Module, path: Path, *example: Tensor, dynamic: bool = False, opset: int = 17) -> Path:
    names = ["z", "label"][: len(example)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, str(path), dynamo=False, opset_version=opset, input_names=names, output_names=["image"],
            dynamic_axes={name: {0: "n"} for name in names} if dynamic else None,
        )  # fmt: skip
    return path


def opened(path: Path, **hints: object) -> Networks:
    return OnnxAdapter().open(peek(path), Hints(**hints))


@pytest.fixture(scope="module")
def eager() -> nn.Module:
    return trained(Dcgan())


@pytest.fixture(scope="module")
def dcgan(eager: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(eager, tmp_path_factory.mktemp("onnx") / "gan.onnx", Z[:1])


@pytest.fixture(scope="module", params=["one sample", "any number"])
def networks(request: pytest.FixtureRequest, eager: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    path = tmp_path_factory.mktemp("onnx") / "gan.onnx"
    return opened(save(eager, path, Z[:1], dynamic=request.param == "any number"))


def test_every_layer_reads_as_in_the_live_module(networks: Networks, eager: nn.Module) -> None:
    layers_agree(networks.generator, eager, Z)


def test_an_edit_changes_the_image_as_in_the_live_module(networks: Networks, eager: nn.Module) -> None:
    edits_agree(networks.generator, eager, Z)


def test_gradients_equal_those_of_the_live_module(networks: Networks, eager: nn.Module) -> None:
    gradients_agree(networks.generator, eager, Z)


def test_layers_are_torchs_own_with_the_names_and_weights_of_the_original(networks: Networks, eager: nn.Module) -> None:
    state = networks.generator.state_dict()
    for name, tensor in eager.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(state[name], tensor)
    assert [type(networks.generator.get_submodule(name)) for name in DCGAN_LAYERS] == [
        type(part) for part in eager.main
    ]


def test_the_latent_is_told_and_a_copy_runs_by_itself(networks: Networks) -> None:
    assert networks.latent.shape == (12, 1, 1) and networks.family == "ONNX"
    twin, before = copy.deepcopy(networks.generator), networks.generator(Z)
    with torch.no_grad():
        next(iter(twin.parameters())).zero_()
    torch.testing.assert_close(networks.generator(Z), before)
    assert not torch.allclose(twin(Z), before)


def test_the_images_are_those_of_onnx_runtime(dcgan: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(dcgan), providers=["CPUExecutionProvider"])
    truth = torch.cat([torch.from_numpy(session.run(None, {"z": z[None].numpy()})[0]) for z in Z])
    networks = opened(dcgan)
    torch.testing.assert_close(networks.generator(Z), truth, atol=1e-5, rtol=0)
    assert networks.mismatch is not None and networks.mismatch < 1e-5
    assert "equals ONNX Runtime's own output" in networks.verification


def test_without_onnx_runtime_the_report_says_that_nothing_was_verified(
    dcgan: Path, eager: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    networks = opened(dcgan)
    assert "onnxruntime is not installed" in networks.verification and networks.mismatch is None
    torch.testing.assert_close(networks.generator(Z), eager(Z), atol=1e-5, rtol=0)


@pytest.mark.parametrize("opset", [11, 13, 20])
@pytest.mark.parametrize("dynamic", [False, True])
def test_upsampling_and_attention_read_at_any_batch_size(dynamic: bool, opset: int, tmp_path: Path) -> None:
    eager, z = trained(Upsampler()), torch.randn(3, 8)
    generator = opened(save(eager, tmp_path / "gan.onnx", z[:1], dynamic=dynamic, opset=opset)).generator
    torch.testing.assert_close(generator(z), eager(z), atol=1e-5, rtol=0)
    names = ["fc", "net.0", "net.1", "net.2", "net.3", "net.4.query", "net.5", "net.6", "net.7", "net.8", "net.9"]
    found, truth = (layer_outputs(net, names, z) for net in (generator, eager))
    for name in names:
        torch.testing.assert_close(found[name], truth[name], atol=1e-5, rtol=0)
    assert isinstance(generator.get_submodule("net.0"), nn.Upsample)
    assert isinstance(generator.get_submodule("net.8"), nn.PReLU)
    weights = layer_outputs(generator, ["net.4.softmax_1"], z)["net.4.softmax_1"]
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 64))


@pytest.mark.parametrize(("network", "size"), [(Residual, 10), (Tokens, 8), (BakedBatch, 6), (Modulated, 6)])
@pytest.mark.parametrize("batch", [1, 2])
def test_other_generators_give_their_own_images(
    network: Callable[[], nn.Module], size: int, batch: int, tmp_path: Path
) -> None:
    eager, z = trained(network()), torch.randn(5, size)
    networks = opened(save(eager, tmp_path / "gan.onnx", z[:batch]))
    assert networks.latent.shape == (size,)
    torch.testing.assert_close(networks.generator(z), eager(z), atol=1e-5, rtol=0)
    z = z.requires_grad_()
    mine, truth = (torch.autograd.grad(net(z).square().sum(), z)[0] for net in (networks.generator, eager))
    torch.testing.assert_close(mine, truth, atol=1e-4, rtol=1e-4)


def test_functional_operations_between_submodules_are_layers(tmp_path: Path) -> None:
    eager, z = trained(Residual()), torch.randn(4, 10)
    generator = opened(save(eager, tmp_path / "gan.onnx", z[:1])).generator
    names = {name for name, _ in generator.named_modules()}
    assert {"fc", "leaky_relu_1", "blocks.0.conv", "blocks.1.norm", "blocks.1.relu_1", "blocks.1.add_1"} <= names
    mine, truth = (with_edit(net, "blocks.0.conv", torch.zeros_like, z) for net in (generator, eager))
    torch.testing.assert_close(mine, truth, atol=1e-5, rtol=0)


def test_labels_are_counted_by_the_rows_they_choose_from(tmp_path: Path) -> None:
    eager, z, labels = trained(Conditional()), torch.randn(3, 8), torch.tensor([0, 4, 2])
    networks = opened(save(eager, tmp_path / "gan.onnx", z[:1], labels[:1]))
    assert networks.num_classes == 5 and networks.latent.shape == (8,)
    torch.testing.assert_close(networks.generator(z, labels), eager(z, labels), atol=1e-5, rtol=0)


def test_a_one_hot_label_is_told_by_its_name(tmp_path: Path) -> None:
    eager, z, labels = trained(OneHot()), torch.randn(3, 8), torch.tensor([0, 4, 2])
    networks = opened(save(eager, tmp_path / "gan.onnx", z[:1], F.one_hot(labels[:1], 5).float()))
    assert networks.num_classes == 5
    torch.testing.assert_close(networks.generator(z, labels), eager(z, F.one_hot(labels, 5).float()))


def test_an_image_to_image_network_takes_images_of_the_recorded_size(tmp_path: Path) -> None:
    eager, images = trained(Shift()), torch.rand(2, 3, 24, 24)
    networks = opened(save(eager, tmp_path / "gan.onnx", images[:1]))
    assert networks.latent.name == "image" and networks.latent.shape == (3, 24, 24)
    torch.testing.assert_close(networks.generator(images), eager(images), atol=1e-5, rtol=0)


def test_a_generator_and_its_discriminator_open_together(dcgan: Path, eager: nn.Module, tmp_path: Path) -> None:
    critic, images = trained(Critic()), torch.rand(4, 3, 16, 16) * 2 - 1
    path = save(critic, tmp_path / "d.onnx", images[:1])
    with pytest.raises(NotOpened, match="only a discriminator"):
        opened(path)
    gan = gandissect.open(dcgan, discriminator=path, device="cpu")
    assert gan.discriminator is not None
    torch.testing.assert_close(gan.discriminator(images), critic(images).flatten(), atol=1e-5, rtol=0)
    assert gan.opening.adapter == "onnx" and [layer.name for layer in gan.generator.layers] == DCGAN_LAYERS
    assert gan.capabilities.edits and gan.capabilities.gradients and gan.capabilities.discriminator_gradients


def changed(path: Path, change: Callable[[onnx.ModelProto], None], name: str = "changed.onnx") -> Path:
    model = onnx.load(str(path))
    change(model)
    target = path.with_name(name)
    target.write_bytes(model.SerializeToString())
    return target


def test_a_graph_without_node_names_is_named_after_its_weights(dcgan: Path, eager: nn.Module) -> None:
    def forget(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.name = ""

    generator = opened(changed(dcgan, forget)).generator
    torch.testing.assert_close(generator(Z), eager(Z), atol=1e-5, rtol=0)
    names = ["main.0", "main.1", "relu_1", "main.3", "main.4", "leaky_relu_1", "main.6", "tanh_1"]
    assert set(names) <= {name for name, _ in generator.named_modules()}


def test_half_precision_is_run_in_full(dcgan: Path, eager: nn.Module) -> None:
    def halve(model: onnx.ModelProto) -> None:
        for held in model.graph.initializer:
            half = onnx.numpy_helper.to_array(held).astype("float16")
            held.CopyFrom(onnx.numpy_helper.from_array(half, held.name))
        for entry in (*model.graph.input, *model.graph.output):
            entry.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16

    images = opened(changed(dcgan, halve)).generator(Z)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, eager(Z), atol=0.02, rtol=0)


def outside(model: onnx.ModelProto, location: str) -> None:
    """Says that the first weight is in another file."""
    held = model.graph.initializer[0]
    held.ClearField("raw_data")
    held.data_location = onnx.TensorProto.EXTERNAL
    del held.external_data[:]
    held.external_data.add(key="location", value=location)


def test_weights_in_a_file_beside_the_graph_are_read(dcgan: Path, eager: nn.Module, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(str(dcgan)), tmp_path / "gan.onnx", save_as_external_data=True, location="gan.bin", size_threshold=0
    )
    torch.testing.assert_close(opened(tmp_path / "gan.onnx").generator(Z), eager(Z), atol=1e-5, rtol=0)
    (tmp_path / "gan.bin").write_bytes((tmp_path / "gan.bin").read_bytes()[:100])
    with pytest.raises(NotOpened, match=r"gan\.bin is cut short"):
        opened(tmp_path / "gan.onnx")


@pytest.mark.parametrize("location", ["/etc/hostname", "../gan.bin", "a/b.bin", "..", "", "C:\\gan.bin"])
def test_weights_elsewhere_are_refused(location: str, dcgan: Path) -> None:
    path = changed(dcgan, lambda model: outside(model, location), "outside.onnx")
    with pytest.raises(UnsafeCheckpoint, match="only a file in its own folder"):
        opened(path)


def test_a_link_beside_the_graph_is_not_followed(dcgan: Path) -> None:
    dcgan.with_name("link.bin").symlink_to(dcgan)
    with pytest.raises(NotOpened, match=r"link\.bin, which is not beside it"):
        opened(changed(dcgan, lambda model: outside(model, "link.bin"), "linked.onnx"))


def test_operators_of_other_domains_are_refused(dcgan: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[2].domain = "com.acme"

    with pytest.raises(UnsafeCheckpoint, match=r"com\.acme::Relu, which is no standard operator"):
        opened(changed(dcgan, change))


def test_control_flow_noise_and_rare_operators_are_refused(dcgan: Path, tmp_path: Path) -> None:
    def named(op: str) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            model.graph.node[2].op_type = op

        return change

    for op, words in (("Loop", "control flow"), ("NonMaxSuppression", "NonMaxSuppression, which gandissect does not")):
        with pytest.raises(NotOpened, match=words):
            opened(changed(dcgan, named(op)))
    with pytest.raises(NotOpened, match=r"draws random numbers \(RandomNormalLike\)"):
        opened(save(trained(Noisy()), tmp_path / "noisy.onnx", torch.randn(1, 8)))


def test_what_no_network_has_is_refused_before_it_is_made(dcgan: Path) -> None:
    def stride(model: onnx.ModelProto) -> None:
        model.graph.node[0].attribute[-1].ints[:] = [2**40, 1]

    with pytest.raises(NotOpened, match="absurd"):
        opened(changed(dcgan, stride))

    def size(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40

    with pytest.raises(NotOpened, match="beyond the limit"):
        opened(changed(dcgan, size))


def test_a_graph_that_asks_for_terabytes_is_refused(tmp_path: Path) -> None:
    helper = onnx.helper
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [2**20, 2**20])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("MatMul", ["z", "zeros"], ["image"]),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in ("z", "image")]
    model = helper.make_model(helper.make_graph(nodes, "bomb", ends[:1], ends[1:], [shape]))
    onnx.save(model, tmp_path / "bomb.onnx")
    with pytest.raises(NotOpened, match="beyond the limit"):
        opened(tmp_path / "bomb.onnx")


@pytest.mark.parametrize("kept", [40, 900, 3000])
def test_a_truncated_file_gives_a_sentence(kept: int, dcgan: Path) -> None:
    path = dcgan.with_name("short.onnx")
    path.write_bytes(dcgan.read_bytes()[:kept])
    with pytest.raises(NotOpened, match=r"short\.onnx (is damaged|holds no ONNX graph)"):
        opened(path)


def test_the_command_line_refuses_with_exit_code_4(dcgan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gandissect.cli import main

    path = changed(dcgan, lambda model: outside(model, "/etc/hostname"), "outside.onnx")
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", str(path), "-n", "8"])
    assert stopped.value.code == 4
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_without_the_onnx_package_the_sentence_says_what_to_install(
    dcgan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NotOpened, match=r"pip install 'gandissect\[onnx\]'"):
        opened(dcgan)


def test_the_graph_is_read_without_running_it(dcgan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("an operator ran")

    monkeypatch.setattr("gandissect_adapters.graph.engine.evaluate", refuse)
    monkeypatch.setattr("gandissect_adapters.graph.engine.call", refuse)
    assert onnx_graph.read(dcgan).shapes == ((12, 1, 1),)
