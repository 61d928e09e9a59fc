"""``gandissect invert`` finds the latents of pictures, and ``edit`` goes on from them."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import to_uint8
from gandissect.cli.edit import Direction, moved
from gandissect.cli.invert import comparison_png, space_to_search
from gandissect.cli.latents import Points, read_points, saved_points
from gandissect.errors import UsageError
from gandissect.gan import InnerSpace, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.testing import tiny_session


class Smooth(nn.Module):
    """z [N, 4] to [N, 1, 8, 8], a linear map of small slope."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 64)
        with torch.no_grad():
            self.fc.weight.mul_(0.4)

    def forward(self, z: Tensor) -> Tensor:
        return self.fc(z).tanh().reshape(-1, 1, 8, 8)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str, str, Tensor]:
    """A checkpoint, a picture that it made, one that it cannot make, and the latent of the first [1, 4]."""
    net, latent = Smooth().eval(), torch.tensor([[0.5, -1.0, 1.5, 0.2]])
    torch.jit.trace(net, torch.zeros(2, 4)).save(str(tmp_path / "g.pt"))
    Image.fromarray(to_uint8(net(latent))[0]).save(tmp_path / "own.png")
    board = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    return str(tmp_path / "g.pt"), str(tmp_path / "own.png"), str(tmp_path / "board.png"), latent


FAST = ("--steps", "60", "--starts", "1", "-n", "200", "--prior", "0", "--own", "20")


def test_the_latent_of_a_picture_that_the_generator_made_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: tuple[str, str, str, Tensor]
) -> None:
    checkpoint, own, board, latent = pictures
    target, sheet = tmp_path / "out" / "l.npy", tmp_path / "out" / "s.png"
    code, out, err = run(capsys, "invert", checkpoint, own, board, "-o", str(target), "--picture", str(sheet), *FAST)
    assert (code, out.split()) == (0, [str(target), str(sheet)])
    lines = err.strip().splitlines()
    assert [line.split(":")[0] for line in lines[-2:]] == [own, board]
    assert "larger than of 20 of 20 own images (p = 0.048)" in lines[-1]
    found = np.load(target)
    assert found.shape == (2, 4)
    assert found[:1] == pytest.approx(latent.numpy(), abs=0.1)
    assert Image.open(sheet).size[1] == 22 + 2 * 66
    assert sorted(path.name for path in target.parent.iterdir()) == ["l.npy", "s.png"]


def test_json_holds_what_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: tuple[str, str, str, Tensor]
) -> None:
    checkpoint, own, board, _ = pictures
    target = str(tmp_path / "l.safetensors")
    code, out, _ = run(capsys, "invert", checkpoint, own, board, "-o", target, *FAST, "--json")
    card = json.loads(out)
    assert (code, card["written"], card["space"], card["own"]) == (0, [target], "z", 20)
    made, alien = card["images"]
    assert (made["image"], alien["beyond"], alien["p"]) == (own, 20, pytest.approx(1 / 21))
    assert made["error"] < 1 < 10 < alien["error"]
    points = read_points(Path(target))
    assert (points.space, points.labels, points.values.shape) == ("z", None, (2, 4))


def test_edit_goes_on_from_what_was_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pictures: tuple[str, str, str, Tensor]
) -> None:
    checkpoint, own, board, _ = pictures
    np.save(tmp_path / "d.npy", np.eye(4, dtype=np.float32)[2])
    latents, strip = str(tmp_path / "l.npy"), str(tmp_path / "strip.png")
    assert run(capsys, "invert", checkpoint, own, board, "-o", latents, *FAST)[0] == 0
    given = ["edit", checkpoint, "--direction", str(tmp_path / "d.npy"), "-o", strip, "--alpha", "-1..1:3"]
    assert run(capsys, *given, "--latents", latents)[0] == 0
    assert Image.open(strip).size[1] == 22 + 2 * 66
    np.save(tmp_path / "wrong.npy", np.zeros((2, 5)))
    code, _, err = run(capsys, *given, "--latents", str(tmp_path / "wrong.npy"))
    assert (code, err.strip()) == (2, "UsageError: --latents has rows of 5 numbers; z takes 4")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{own}", "-o", "l.txt"], "expected a name that ends in .npy or .safetensors"),
        (["{own}", "--picture", "p.jpg"], "expected a name that ends in .png"),
        (["nowhere.png"], "no image nowhere.png"),
        (["{checkpoint}"], "cannot read the picture"),
        (["{own}", "--space", "w"], "no latent space 'w'"),
        ([], "Missing argument 'IMAGE...'"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pictures: tuple[str, str, str, Tensor],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    known = {"checkpoint": pictures[0], "own": pictures[1]}
    code, out, err = run(capsys, "invert", pictures[0], *(part.format(**known) for part in arguments))
    assert (code, out) == (2, "")
    assert says in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_checkpoint_has_its_own_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert run(capsys, "invert", str(tmp_path / "none.pt"), str(tmp_path / "a.png"))[0] == 4


def test_points_keep_their_classes_and_their_space(tmp_path: Path) -> None:
    points = Points(torch.randn(3, 2, 4), torch.tensor([2, 0, 1]), "w+")
    (tmp_path / "p.safetensors").write_bytes(saved_points(points, ".safetensors"))
    again = read_points(tmp_path / "p.safetensors")
    assert again.labels is not None
    assert (again.space, again.labels.tolist()) == ("w+", [2, 0, 1])
    assert torch.equal(again.values, points.values)
    (tmp_path / "p.npy").write_bytes(saved_points(points, ".npy"))
    plain = read_points(tmp_path / "p.npy")
    assert (plain.space, plain.labels) == ("", None)
    assert torch.equal(plain.values, points.values)


def test_points_are_moved_in_the_space_they_belong_to() -> None:
    net = Smooth()
    space = InnerSpace("w", (4,), lambda z, _: 2 * z, lambda w, _: net(w / 2))
    networks = Networks(net, None, LatentSpace("z", (4,)), inner=(space,), output_range=(-1.0, 1.0))
    session = Session(build_gan(networks, name="x", opening=Opening("t", "t")), n=3)
    still = Direction("d", np.ones(4, np.float32))
    z = session.latents()
    given = {"z": Points(z), "w": Points(2 * z, space="w")}
    for start in given.values():
        (frame,) = moved(session, still, (0.0,), space="w", start=start)
        assert frame == pytest.approx(session.images(), abs=1e-6)
    with pytest.raises(UsageError, match="holds points of w; say --space w, not z"):
        moved(session, still, (0.0,), start=given["w"])


def test_a_file_that_cannot_keep_what_was_found_is_refused() -> None:
    gan = tiny_session("conditional", n=2).gan
    assert space_to_search(gan, None, Path("l.safetensors")) == "z"
    with pytest.raises(UsageError, match=r"cannot keep classes; -o l\.safetensors does"):
        space_to_search(gan, None, Path("l.npy"))


def test_the_classes_of_points_are_used() -> None:
    session = tiny_session("conditional", n=2)
    start = Points(session.latents(), torch.tensor([3, 3]))
    (frame,) = moved(session, Direction("d", np.ones(32, np.float32)), (0.0,), start=start)
    assert torch.equal(frame, session.generate(session.latents(), labels=torch.tensor([3, 3])))
    assert not torch.equal(frame, session.images())


def test_damaged_files_of_points_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY nonsense")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    np.save(tmp_path / "nan.npy", np.array([[np.nan, 1.0]]))
    (tmp_path / "odd.safetensors").write_bytes(
        saved_points(Points(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)), ".safetensors")
    )
    for name, says in (
        ("bad.npy", "cannot read"),
        ("bad.safetensors", "cannot read"),
        ("nan.npy", "finite"),
        ("odd.safetensors", "3 points and labels"),
        ("none.npy", "no such file"),
        ("x.txt", "expected a .npy"),
    ):
        with pytest.raises(UsageError, match=says):
            read_points(tmp_path / name)


def test_the_sheet_shows_where_an_inversion_is_off() -> None:
    wanted = torch.zeros(1, 3, 64, 64)
    made = wanted.clone()
    made[:, :, :, :32] = 1.0
    names = ["a"]
    sheet = np.asarray(Image.open(BytesIO(comparison_png(wanted, made, names))))
    error = sheet[22:86, -66:-2]
    assert (error[:, :30] == 255).all()
    assert (error[:, 34:] == 0).all()
