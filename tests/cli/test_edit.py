"""``gandissect edit`` draws what it is told and says in one sentence what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.cli.edit import Direction, moved, parse_alphas, read_direction, saved, strip_png
from gandissect.errors import UsageError
from gandissect.gan import InnerSpace, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.testing import PLANTED, PlantedGenerator, tiny_session


class Styled(nn.Module):
    """w = 2z, two styles of 3 numbers: the first sets red, the second green."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.1))

    def paint(self, ws: Tensor) -> Tensor:
        colours = torch.stack([ws[:, 0].sum(1), ws[:, 1].sum(1), 0 * ws[:, 0, 0]], 1) * self.gain
        return colours[:, :, None, None].expand(-1, 3, 8, 8).tanh()

    def forward(self, z: Tensor) -> Tensor:
        return self.paint((2 * z)[:, None].expand(-1, 2, -1))


def styled_session(n: int = 3) -> Session:
    net = Styled()
    spaces = (
        InnerSpace("w", (3,), lambda z, _: 2 * z, lambda w, _: net.paint(w[:, None].expand(-1, 2, -1))),
        InnerSpace("w+", (2, 3), lambda z, _: (2 * z)[:, None].expand(-1, 2, -1), lambda ws, _: net.paint(ws)),
    )
    networks = Networks(net, None, LatentSpace("z", (3,)), inner=spaces)
    return Session(build_gan(networks, name="styled", opening=Opening("t", "t")), n=n)


def along(values: object, space: str = "", sigma: float | None = None) -> Direction:
    return Direction("d", np.asarray(values, np.float32), space, sigma)


def test_ranges_and_lists_of_alphas() -> None:
    assert parse_alphas("-3..3") == (-3, -2, -1, 0, 1, 2, 3)
    assert parse_alphas("0..1:3") == (0, 0.5, 1)
    assert parse_alphas("-2,0,2.5") == (-2, 0, 2.5)
    for wrong in ("", "a..b", "1..2:1", "0..1:99", "nan", "1,,2"):
        with pytest.raises(UsageError, match="expected a range such as"):
            parse_alphas(wrong)


def test_the_planted_direction_brightens_and_alpha_zero_is_the_sample_itself() -> None:
    session = tiny_session("planted", n=3)
    frames = moved(session, along(np.eye(16)[PLANTED.brightness]), (-1.0, 0.0, 1.0))
    assert torch.equal(frames[1], session.images(3))
    middle = frames[:, :, :, 16, 16].mean((1, 2))
    assert middle[0] < middle[1] < middle[2]


def test_spaces_and_styles_are_moved_where_they_are_said_to_be() -> None:
    session = styled_session()
    plain = session.images(3)
    both, red, w = (
        moved(session, along(np.ones(3)), (1.0,), space=space, layer=layer)[0]
        for space, layer in (("w+", None), ("w+", "0"), ("w", None))
    )
    assert torch.equal(both, w)
    assert (red[:, 0] > plain[:, 0]).all()
    assert torch.equal(red[:, 1:], plain[:, 1:])


def test_the_step_is_that_of_the_file_in_its_own_space_only() -> None:
    session = styled_session()
    given, plain = along(np.ones(3), "w", 2.0), along(2 * np.ones(3))
    assert torch.equal(moved(session, given, (1.0,)), moved(session, plain, (1.0,), space="w"))
    assert torch.equal(moved(session, given, (2.0,), space="z"), moved(session, plain, (1.0,), space="z"))


def test_a_layer_takes_one_number_for_each_unit() -> None:
    session = tiny_session("planted", n=2)
    frames = moved(session, along(np.eye(16)[PLANTED.brightness]), (0.0, 1.0), layer=PLANTED.layer)
    assert torch.equal(frames[0], session.images(2))
    assert frames[1].mean() > frames[0].mean()


@pytest.mark.parametrize(
    ("space", "layer", "size", "says"),
    [
        (None, None, 4, "the direction has 4 numbers and space z takes 3"),
        ("w", None, 2, "space w takes 3"),
        ("w+", None, 4, "w\\+ takes 3, or 2 × 3"),
        ("w+", "5", 3, "each below 2"),
        ("w", "0", 3, "not with w"),
        ("v", None, 3, "no latent space 'v'"),
        (None, "nope", 3, "no layer 'nope'"),
    ],
)
def test_what_does_not_fit_is_said(space: str | None, layer: str | None, size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        moved(styled_session(), along(np.ones(size)), (0.0,), space=space, layer=layer)


def test_all_kinds_of_files_are_read(tmp_path: Path) -> None:
    rows = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "two.npy", rows)
    np.save(tmp_path / "one.npy", rows[:1])
    save_file({"smile": rows[0], "age": rows[1]}, tmp_path / "d.safetensors")
    entry = {"space": "w", "sigma": 0.5, "vector": rows[1].tolist()}
    block = {"kind": "data", "name": "directions", "value": {"SeFa 1": entry}}
    (tmp_path / "r.json").write_text(json.dumps({"sections": [{"blocks": [{"kind": "text"}, block]}]}))
    for source, expected in (("two.npy#1", 1), ("one.npy", 0), ("d.safetensors#age", 1), ("r.json#SeFa 1", 1)):
        assert np.array_equal(read_direction(str(tmp_path / source)).vector, rows[expected])
    found = read_direction(str(tmp_path / "r.json"))
    assert (found.space, found.sigma) == ("w", 0.5)
    (tmp_path / "again.safetensors").write_bytes(saved(found, ".safetensors"))
    again = read_direction(str(tmp_path / "again.safetensors"))
    assert (again.name, again.space, again.sigma) == ("SeFa 1", "w", 0.5)
    with pytest.raises(UsageError, match="holds 2 directions"):
        read_direction(str(tmp_path / "two.npy"))
    with pytest.raises(UsageError, match="did you mean age"):
        read_direction(str(tmp_path / "d.safetensors#aeg"))


def test_damaged_and_empty_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY nonsense")
    (tmp_path / "bad.json").write_text("[1, 2")
    (tmp_path / "none.json").write_text("{}")
    np.save(tmp_path / "nan.npy", np.array([np.nan, 1.0]))
    for name, says in (
        ("bad.npy", "cannot read"),
        ("bad.json", "cannot read"),
        ("none.json", "holds no directions"),
        ("nan.npy", "finite"),
        ("missing.npy", "no file"),
        ("x.txt", "expected a .npy"),
    ):
        with pytest.raises(UsageError, match=says):
            read_direction(str(tmp_path / name))


def test_the_strip_has_a_column_for_each_alpha_and_a_row_for_each_sample(tmp_path: Path) -> None:
    frames = torch.full((3, 2, 1, 40, 50), -1.0)
    frames[2, 1] = 1.0
    (tmp_path / "s.png").write_bytes(strip_png(frames, (-1.0, 0.0, 1.0), ["sample 0", "sample 1"]))
    picture = np.asarray(Image.open(tmp_path / "s.png"))
    assert (picture[-10, -20] == 255).all()
    assert (picture[-10, -120] == 0).all()
    assert picture.shape[0] == 22 + 2 * 82


def test_the_command_writes_a_strip_and_nothing_when_it_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    checkpoint, target = str(tmp_path / "g.pt"), tmp_path / "out" / "strip.png"
    torch.jit.trace(PlantedGenerator(), torch.zeros(2, 16)).save(checkpoint)
    np.save(tmp_path / "d.npy", np.eye(16, dtype=np.float32)[3])
    given = ["edit", checkpoint, "--direction", str(tmp_path / "d.npy"), "-n", "2"]
    code, _, err = run(capsys, *given, "-o", str(target), "--space", "w")
    assert (code, list(tmp_path.rglob("*.png"))) == (2, [])
    assert err.startswith("UnknownName: no latent space 'w'")
    code, out, _ = run(capsys, *given, "-o", str(target), "--alpha", "-2..2:3")
    assert (code, out.strip()) == (0, str(target))
    assert Image.open(target).size[1] == 22 + 2 * 66
    assert [path.name for path in target.parent.iterdir()] == ["strip.png"]
    assert run(capsys, "edit", str(tmp_path / "none.pt"), "--direction", str(tmp_path / "d.npy"))[0] == 4
