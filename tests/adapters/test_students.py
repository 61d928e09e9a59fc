"""Generators as people write and save them give their own images from the file alone, or what is not known is said."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gandissect_adapters.statedict import StateDictAdapter
from students import LabelMap, Residual, Student, TwoBranch, TwoBranchMlp, beyond, joined, labelled, stack
from torch import Tensor, nn

from gandissect.adapter import Hints, Networks
from gandissect.errors import NotOpened
from gandissect.files.peek import peek

ADAPTER = StateDictAdapter()
Make = Callable[[], Student]
D28 = "T32k7s1p0n B R T16k4s2p1n B R T1k4s2p1n tanh"
D32 = "T48k4s1p0n B R T32k4s2p1n B R T16k4s2p1n B R T3k4s2p1n tanh"
D64 = "T48k4s1p0n B R T32k4s2p1n B R T24k4s2p1n B R T16k4s2p1n B R T3k4s2p1n tanh"
FC = "L768 V48x4x4 B R T24k4s2p1 B R T12k4s2p1 B R T3k4s2p1 tanh"
SHUFFLED = "L768 V48x4x4 B R C96k3s1p1 P B R C64k3s1p1 P B R C12k3s1p1 P tanh"
NAMES28 = ["c1", "b1", "c2", "b2", "c3"]
NAMES32 = ["c1", "b1", "c2", "b2", "c3", "b3", "c4"]
UPSAMPLED = "L784 V16x7x7 B U C16k3s1p1 B R U C12k3s1p1 B R C1k3s1p1 tanh"
NAMES_FC = ["fc", "bn0", "conv1", "bn1", "conv2", "bn2", "conv3"]

USUAL: dict[str, Make] = {
    "numbers": lambda: stack(D28, home=""),
    "nested": lambda: stack(D28, home="blocks"),
    "attributes": lambda: stack(D28, names=NAMES28),
    "linear first": lambda: stack("L1568 B R V32x7x7 T16k4s2p1 B R T1k4s2p1 tanh", names=["fc", "bn", "d1", "b1", "d2"]),
    "shuffled": lambda: stack("L392 V8x7x7 B R C48k3s1p1 P B R C24k3s1p1 P B R C1k3s1p1 tanh", names=NAMES_FC),
    "uniform": lambda: stack(D28, prior="uniform", names=NAMES28),
    "one-hot behind z": lambda: labelled("one-hot after", D28),
    "one-hot before z": lambda: labelled("one-hot before", D28),
    "label through a layer": lambda: labelled("fc", D28),
    "two branches": lambda: joined(TwoBranch(), (16, 1, 1), 10),
}  # fmt: skip

RARE: dict[str, Make] = {
    "five by five, output padding": lambda: stack("T32k4s1p0 B R T16k5s2p2o1 B R T3k5s2p2o1 tanh"),
    "refining convolutions": lambda: stack("T32k7s1p0 B R T16k4s2p1 B R C16k3s1p1 B R T1k4s2p1 tanh"),
    "shuffled behind the norm": lambda: stack("L392 V8x7x7 B R C48k3s1p1 B R P C4k3s1p1 P tanh".replace("C4", "C12"),
                                              names=["fc", "bn0", "conv1", "bn1", "conv2"]),
    "norm behind the activation": lambda: stack(D28.replace("B R", "R B"), names=NAMES28),
    "corners aligned": lambda: stack("L392 V8x7x7 B Uc C16k3s1p1 B K Uc C12k3s1p1 B K C1k3s1p1 tanh"),
    "dropout": lambda: stack("T32k7s1p0 B R D T16k4s2p1 B R D T12k3s1p1 B R T1k4s2p1 tanh"),
    "group norms between": lambda: stack("T32k7s1p0 B R T16k4s2p1 G R T12k3s1p1 B R T1k4s2p1 tanh"),
    "two linear branches": lambda: joined(TwoBranchMlp(), (16,), 10),
    **{home: lambda home=home: stack(D32, home=home) for home in ("main", "model", "net", "layers")},  # type: ignore[misc]
    "64 pixels": lambda: stack(D64),
    "norms called after layers": lambda: stack(D32, names=["deconv1", "deconv1_bn", "deconv2", "deconv2_bn", "d3", "d3_bn", "d4"]),
    "parts of blocks": lambda: stack(D32, names=["up1.conv", "up1.bn", "up2.conv", "up2.bn", "up3.conv", "up3.bn", "out"]),
    "leaky": lambda: stack(D32.replace("R", "K"), names=NAMES32),
    "elu": lambda: stack(D32.replace("R", "E")), "selu": lambda: stack(D32.replace("R", "S")),
    "gelu": lambda: stack(D32.replace("R", "Gelu")), "silu": lambda: stack(D32.replace("R", "Silu")),
    "prelu": lambda: stack(D32.replace(" R", " Pre")),
    "view of 4": lambda: stack(FC, names=NAMES_FC),
    "no norm behind linear": lambda: stack("L2048 R V32x8x8 T16k4s2p1 B R T12k4s2p1 B R T3k3s1p1 tanh",
                                           names=["project", "up1", "bn1", "up2", "bn2", "out"]),
    "k3": lambda: stack("T48k4s1p0 B R T24k3s2p1o1 B R T12k3s2p1o1 B R T3k3s2p1o1 tanh"),
    "k2": lambda: stack("T48k4s1p0 B R T24k2s2p0 B R T12k2s2p0 B R T3k2s2p0 tanh"),
    "k4 stride 4": lambda: stack("T48k4s1p0 B R T24k4s4p0 B R T3k4s4p0 tanh"),
    "k6": lambda: stack("T48k4s1p0 B R T24k6s2p2 B R T12k6s2p2 B R T3k6s2p2 tanh"),
    "course": lambda: stack("T64k3s2p0 B R T32k4s1p0 B R T16k3s2p0 B R T1k4s2p0 tanh", home="blocks"),
    "48": lambda: stack("T48k6s1p0 B R T24k4s2p1 B R T12k4s2p1 B R T3k4s2p1 tanh"),
    "96": lambda: stack("T48k6s1p0 B R T32k4s2p1 B R T24k4s2p1 B R T12k4s2p1 B R T3k4s2p1 tanh"),
    "128": lambda: stack(D64.replace("T3k", "T12k4s2p1n B R T3k")),
    "four channels": lambda: stack(D32.replace("T3k", "T4k")),
    "not square": lambda: stack(FC.replace("L768 V48x4x4", "L960 V40x4x6")),
    "nearest": lambda: stack("L784 V16x7x7 B R U C16k3s1p1 B R U C12k3s1p1 B R C1k3s1p1 tanh", names=NAMES_FC),
    "bilinear": lambda: stack("L784 V16x7x7 B Ub C16k3s1p1 B K Ub C8k3s1p1 B K C1k3s1p1 tanh"),
    "shuffled, in numbers": lambda: stack(SHUFFLED), "shuffled, in attributes": lambda: stack(SHUFFLED, names=NAMES_FC),
    "leaky, then norm": lambda: stack(D32.replace("B R", "K B"), names=NAMES32),
    "norm without weights": lambda: stack(D32.replace("B", "b")),
    "first without norm": lambda: stack(D32.replace("B R T32", "R T32")), "last without norm": lambda: stack(D32.replace("B R T3k", "R T3k")),
    "norm at the end": lambda: stack(D32.replace("tanh", "B tanh")),
    "dropout, in attributes": lambda: stack(D32.replace("B R T32", "B R D T32"), names=NAMES32),
    "instance norms between": lambda: stack(D32.replace("B R T16", "I R T16")),
    "spectral norm": lambda: stack(D32, norm=nn.utils.parametrizations.spectral_norm),
    "weight norm": lambda: stack(D32, norm=nn.utils.parametrizations.weight_norm),
    "uniform, linear": lambda: stack(FC, names=NAMES_FC, prior="uniform"),
    "mlp": lambda: stack("L64 B K L128 B K L784 tanh", home="model"), "mlp, norm last": lambda: stack("L64 K B L128 K B L784 tanh"),
    "attention": lambda: stack(D32.replace("B R T16", "B R A T16")),
    "embedding behind z": lambda: labelled("after", D32), "embedding before z": lambda: labelled("before", D32),
    "embedding times z": lambda: labelled("times", D32), "one-hot, linear": lambda: labelled("one-hot after", FC),
}  # fmt: skip


STRANGE: dict[str, Make] = {
    "mish": lambda: stack(D32.replace("R", "Mish")), "hardswish": lambda: stack(D32.replace("R", "Hard")),
    "softplus": lambda: stack(D32.replace("R", "Plus")),
    "slope 0.05": lambda: stack(D32.replace("R", "k5"), names=NAMES32), "slope 0.15": lambda: stack(D32.replace("R", "k15"), names=NAMES32),
    "slope 0.25": lambda: stack(D32.replace("R", "k25")), "slope 0.5": lambda: stack(D32.replace("R", "k50")),
    "reflected": lambda: stack(UPSAMPLED.replace("16k3s1p1", "16k3s1p0").replace("12k3s1p1", "12k3s1p0").replace("1k3s1p1", "1k3s1p0")
                               .replace("C", "M C")),
    "reflecting": lambda: beyond(stack(UPSAMPLED, names=NAMES_FC), "reflect"),
    "circular": lambda: beyond(stack(UPSAMPLED, names=NAMES_FC), "circular"),
    "four times as large": lambda: stack("L784 V16x7x7 B U4 C16k3s1p1 B R C12k3s1p1 B R C1k3s1p1 tanh"),
    "eps 0.8": lambda: stack(FC.replace("B R", "B8 K"), names=NAMES_FC),
    "eps 0.8 but first": lambda: stack(UPSAMPLED.replace("B R", "B8 K")), "eps 0.8, mlp": lambda: stack("L64 K L128 B8 K L256 B8 K L784 tanh"),
    "mlp, first without norm": lambda: stack("L64 K L128 B K L256 B K L784 tanh"),
    "activations mixed": lambda: stack("T48k4s1p0n B R T32k4s2p1n B K T16k4s2p1n B R T3k4s2p1n tanh"),
}  # fmt: skip
UNSURE: dict[str, tuple[Make, set[str]]] = {
    "no norm": (lambda: stack(D28.replace("B ", ""), z=20, names=NAMES28[::2]), {"activation", "geometry", "prior"}),
    "instance norm without a trace": (lambda: stack(D28.replace("B", "i"), z=20), {"activation", "geometry", "prior"}),
    "such a norm between": (lambda: stack(D32.replace("B R T16", "i R T16")), {"activation"}),
    "layer norm, mlp": (lambda: stack("L64 N K L128 N K L784 tanh"), {"activation", "prior"}),
    "softsign": (lambda: stack(D32.replace("R", "Sign")), {"activation"}),
    "slope 0.02": (lambda: stack(D32.replace("R", "k2"), names=NAMES32), {"activation"}),
    "three times as large": (lambda: stack("L400 V16x5x5 B U3 C16k3s1p1 B R U C12k3s1p1 B R C1k3s1p1 tanh"), {"activation"}),
    "strides of 3": (lambda: stack("T32k3s1p0 B R T24k3s3p0 B R T16k4s3p1 B R T3k4s2p1 tanh"), {"geometry behind the last norm"}),
}  # fmt: skip


def opened(student: Student, path: Path, **assume: str) -> Networks:
    if not path.exists():
        torch.save(student.net.state_dict(), path)
    return ADAPTER.open(peek(path), Hints(assume=assume))


@torch.no_grad()
def off_by(found: Networks, student: Student) -> float:
    """Largest difference from the student's own images; infinite where not even sizes agree."""
    z, labels = student.draw(6)
    wanted = student.images(z, labels)
    assert found.generator is not None
    assert found.latent is not None
    if (found.num_classes, found.latent.shape) != (student.classes, student.latent):
        return float("inf")
    images: Tensor = found.generator(z, labels) if student.classes else found.generator(z)
    return (
        float((images.flatten() - wanted.flatten()).abs().max()) if images.numel() == wanted.numel() else float("inf")
    )


def doubts(found: Networks) -> set[str]:
    return {assumption.name for assumption in found.assumptions if not assumption.sure}


def comes_out(student: Student, path: Path) -> None:
    found = opened(student, path)
    assert off_by(found, student) <= 1e-3
    assert found.latent is not None
    assert found.latent.prior == student.prior


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=[] if place < 5 else [pytest.mark.slow]) for place, make in enumerate(USUAL.values())],
    ids=USUAL.keys(),
)
def test_a_students_own_images_come_out(make: Make, tmp_path: Path) -> None:
    comes_out(make(), tmp_path / "netG.pth")


@pytest.mark.slow
@pytest.mark.parametrize("make", RARE.values(), ids=RARE.keys())
def test_the_images_of_rarer_students_come_out(make: Make, tmp_path: Path) -> None:
    comes_out(make(), tmp_path / "netG.pth")


@pytest.mark.slow
@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE.keys())
def test_the_images_of_strange_students_come_out(make: Make, tmp_path: Path) -> None:
    comes_out(make(), tmp_path / "netG.pth")


@pytest.mark.slow
@pytest.mark.parametrize(("make", "named"), UNSURE.values(), ids=UNSURE.keys())
def test_what_cannot_be_told_of_strange_students_is_called_unsure(make: Make, named: set[str], tmp_path: Path) -> None:
    student = make()
    found = opened(student, tmp_path / "netG.pth")
    assert off_by(found, student) <= 1e-3 or named <= doubts(found)


State = dict[str, Tensor]


def _under(prefix: str) -> Callable[[State], object]:
    return lambda state: OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def _optimizer(state: State) -> dict[str, object]:
    return {
        "state": {0: {"exp_avg": next(iter(state.values())), "step": torch.tensor(3.0)}},
        "param_groups": [{"lr": 2e-4}],
    }


_SAVED: dict[str, Callable[[State], object]] = {
    "lightning": lambda state: {"state_dict": _under("generator.")(state), "optimizer_states": [_optimizer(state)], "epoch": 3},
    "compiled": _under("_orig_mod.module."),
    "all in one": lambda state: {"netG": state, "optimizerG": _optimizer(state), "G_losses": [0.1], "fixed_noise": torch.ones(64, 16)},
    "beside weights": lambda state: {**state, "fixed_noise": torch.ones(64, 16), "epoch": torch.tensor(3), "losses": torch.ones(9)},
    "in a tuple": lambda state: {"nets": (state, {"0.weight": torch.ones(1, 784)})},
    "without metadata": dict,
    "averaged alone": lambda state: {
        "ema": {name: tensor for name, tensor in state.items() if "running" not in name and "num" not in name},
        "netG": {name: tensor * 1.01 if tensor.dim() == 4 else tensor for name, tensor in state.items()},
    },
}  # fmt: skip


@pytest.mark.parametrize("wrap", _SAVED.values(), ids=_SAVED.keys())
def test_whatever_it_is_saved_in_the_network_is_found(wrap: Callable[[State], object], tmp_path: Path) -> None:
    student = stack(D28)
    torch.save(wrap(student.net.state_dict()), tmp_path / "checkpoint.pth")
    assert off_by(opened(student, tmp_path / "checkpoint.pth"), student) <= 1e-3


def test_arrays_of_numpy_are_tensors_too(tmp_path: Path) -> None:
    student = stack(D28)
    arrays = {name: tensor.numpy() for name, tensor in student.net.state_dict().items()}
    (tmp_path / "generator.pkl").write_bytes(pickle.dumps(arrays))
    assert off_by(opened(student, tmp_path / "generator.pkl"), student) <= 1e-3


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one file", "two files"])
def test_a_discriminator_settles_the_size(apart: bool, tmp_path: Path) -> None:
    student = stack("T48k4s1p0 B R T24k4s2p1 B R T16k4s2p1 B R T3k3s1p1 tanh")  # 16 pixels, where 32 are more usual
    critic = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(8 * 8 * 8, 1))
    torch.save(critic.state_dict(), tmp_path / "netD.pth")
    both = {"netG": student.net.state_dict(), "netD": critic.state_dict()}
    torch.save(student.net.state_dict() if apart else both, tmp_path / "netG.pth")
    hints = Hints(discriminator_path=tmp_path / "netD.pth") if apart else Hints()
    found = ADAPTER.open(peek(tmp_path / "netG.pth"), hints)
    assert off_by(found, student) <= 1e-3
    assert any("its discriminator takes" in a.because for a in found.assumptions if a.name == "image size")


def test_two_activations_that_fit_alike_are_a_doubt(tmp_path: Path) -> None:
    student = stack(D28.replace("R", "k"))
    found = opened(student, tmp_path / "netG.pth")
    assert off_by(found, student) <= 1e-3 or "activation" in doubts(found)
    assert off_by(opened(student, tmp_path / "netG.pth", activation="lrelu0.01"), student) <= 1e-3


def test_what_follows_the_last_norm_is_a_doubt(tmp_path: Path) -> None:
    student = stack(D28.replace("T1k4s2p1n tanh", "T1k5s3p1 sig"))
    found = opened(student, tmp_path / "netG.pth")
    assert {"geometry behind the last norm", "image size", "output"} <= doubts(found)
    assert not {"geometry", "activation", "prior"} & doubts(found)
    assert off_by(opened(student, tmp_path / "netG.pth", size="42", output="sigmoid"), student) <= 1e-3


@pytest.mark.slow
def test_norms_that_nothing_tells_apart_are_a_doubt_and_can_be_said(tmp_path: Path) -> None:
    student = stack(D28.replace("B", "G"), names=["c1", "n1", "c2", "n2", "c3"])
    found = opened(student, tmp_path / "netG.pth")
    assert {"norm", "activation", "geometry"} <= doubts(found)
    assert "not verified" in found.verification
    assert off_by(opened(student, tmp_path / "netG.pth", norm="group4"), student) <= 1e-3


def test_a_label_without_a_trace_is_hinted_at_and_can_be_said(tmp_path: Path) -> None:
    student = labelled("one-hot after", "L64 R L784 tanh")
    assert any("one-hot" in note for note in opened(student, tmp_path / "netG.pth").notes)
    assert off_by(opened(student, tmp_path / "netG.pth", condition="10"), student) <= 1e-3


@pytest.mark.parametrize(
    "make", [lambda: joined(LabelMap(), (16,), 10), lambda: joined(Residual(), (16,), 0)], ids=["label map", "residual"]
)
def test_what_is_no_chain_is_refused_in_a_sentence(make: Make, tmp_path: Path) -> None:
    with pytest.raises(NotOpened, match="pass its class with --generator") as caught:
        opened(make(), tmp_path / "netG.pth")
    assert "\n" not in str(caught.value)
