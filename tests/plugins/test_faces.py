"""Parts of a face are where its mesh is, nothing is claimed where no face is, and the networks find faces of real GANs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.vocabularies import Faces, face_models
from gandissect_plugins.vocabularies.face_models import FaceModels, best_face
from gandissect_plugins.vocabularies.faces import AROUND, EYES, MOUTH, OVAL, PARTS, outline
from torch import Tensor

from gandissect.errors import UsageError
from gandissect.vocabulary import build_segmenter


def circle(count: int, x: float, y: float, radius: float) -> Tensor:
    angle = torch.arange(count) * 2 * torch.pi / count
    return torch.stack([x + radius * angle.cos(), y + radius * angle.sin()], 1)


def drawn_mesh(scale: float = 1.0) -> Tensor:
    """A face in the middle of 64 × 64 pixels: oval of radius 24, eyes of radius 4 at (24, 26) and (40, 26), a mouth below."""
    mesh = torch.full((468, 2), 32.0)
    mesh[list(OVAL)] = circle(len(OVAL), 32, 32, 24)
    for places, x in zip(EYES, (24, 40), strict=True):
        mesh[list(places)] = circle(len(places), x, 26, 4)
    mesh[list(MOUTH)] = circle(len(MOUTH), 32, 45, 6)
    return mesh * scale


@pytest.mark.parametrize("scale", [1, 4])
def test_a_drawn_face_has_its_parts_where_they_were_drawn(scale: int) -> None:
    size = 64 * scale
    parts = dict(zip(PARTS, outline(drawn_mesh(scale), size, size).planes(), strict=True))
    row, column = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    away = ((row - 32 * scale) ** 2 + (column - 32 * scale) ** 2).sqrt()
    expected = away < 24 * scale
    overlap = float((parts["face"] & expected).sum() / (parts["face"] | expected).sum())
    assert overlap > 0.97
    assert abs(float(parts["eyes"].sum()) / (2 * torch.pi * (4 * scale) ** 2) - 1) < 0.1
    assert bool(parts["eyes"][26 * scale, 24 * scale]) and bool(parts["mouth"][45 * scale, 32 * scale])
    assert not bool((parts["skin"] & (parts["eyes"] | parts["mouth"])).any())
    assert bool((parts["skin"] | parts["eyes"] | parts["brows"] | parts["mouth"])[parts["face"]].all())


def answers(x: float, y: float, certain: float = 3.0) -> tuple[Tensor, Tensor]:
    """What the detector says of one face 0.4 wide whose eyes are 0.1 left and right of (x, y): raw [896, 16] and logits."""
    raw, logits = torch.zeros(896, 16), torch.full((896,), -9.0)
    cell = 2 * (int(y * 16) * 16 + int(x * 16))
    middle = torch.tensor([(int(x * 16) + 0.5) / 16, (int(y * 16) + 0.5) / 16])
    points = [torch.tensor([x, y]) - middle, torch.tensor([0.4, 0.4]), torch.tensor([x - 0.1, y]) - middle]
    points.append(torch.tensor([x + 0.1, y]) - middle)
    raw[cell, :8], logits[cell] = 128 * torch.cat(points), certain
    return raw, logits


def test_the_detectors_answer_is_read_as_a_box_and_two_eyes() -> None:
    box, eyes = best_face(*answers(0.3, 0.7))
    assert box is not None and torch.allclose(box, torch.tensor([0.3, 0.7, 0.4, 0.4]), atol=1e-5)
    assert torch.allclose(eyes, torch.tensor([[0.2, 0.7], [0.4, 0.7]]), atol=1e-5)
    assert best_face(*answers(0.3, 0.7, certain=-0.1))[0] is None


def planted(*, face: bool = True, person: float = 0.0) -> FaceModels:
    """Networks that see one upright face in the middle of every view, its mesh all at the middle of the face."""
    raw, logits = answers(0.5, 0.5, 3.0 if face else -3.0)
    mesh = np.full((1, 1404), 96, np.float32)
    return FaceModels(
        detector=lambda _pixels: [raw.numpy(), logits.numpy()],
        mesh=lambda _pixels: [mesh, np.float32([[5.0]])],
        person=lambda _pixels: [np.full((1, 256, 256, 1), person, np.float32)],
    )


def test_the_mesh_is_given_in_pixels_of_the_image_whatever_its_shape() -> None:
    mesh = planted().mesh(torch.rand(3, 40, 60))
    assert mesh is not None and mesh.shape == (468, 2) and torch.allclose(mesh, torch.tensor([30.0, 20.0]), atol=1e-3)


def test_a_sample_without_a_face_has_no_part_of_one() -> None:
    source = Faces(models=planted(face=False, person=0.9))
    masks = source.segment(torch.zeros(2, 3, 32, 32), [0, 1])
    assert [concept.name for concept in source.concepts] == [*PARTS, *AROUND]
    assert (
        not masks[:, : len(PARTS)].any()
        and masks[:, len(PARTS)].all()
        and source.soft(torch.zeros(2, 3, 32, 32)) is None
    )


def test_a_person_segmenter_that_misses_the_face_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceModels, "mesh", lambda _models, _image: drawn_mesh())
    missed, seen = (Faces(models=planted(person=p)).segment(torch.zeros(1, 3, 64, 64), [0])[0] for p in (0.1, 0.9))
    names = [*PARTS, *AROUND]
    assert missed[names.index("face")].any() and not missed[len(PARTS) :].any()
    assert (
        seen[names.index("person")].all() and not (seen[names.index("hair and body")] & seen[names.index("face")]).any()
    )


def test_what_is_missing_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name, *_rest: None)
    with pytest.raises(UsageError, match=r"ai-edge-litert; type: pip install 'gandissect\[faces\]'") as refused:
        Faces()
    assert "\n" not in str(refused.value) and Faces.unavailable()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_rest: name if name == face_models.RUNTIME else None)
    assert "mediapipe 0.10.21" in Faces.unavailable()


def test_faces_takes_no_argument() -> None:
    with pytest.raises(UsageError, match="takes no argument"):
        build_segmenter("faces:all")


@pytest.mark.skipif(bool(Faces.unavailable()), reason=Faces.unavailable() or "installed")
@pytest.mark.parametrize("name", ["face-dcgan-digiface", "celeba32-dcgan-fletcher", "celeba32-began-massi"])
def test_faces_of_real_gans_are_found_and_their_parts_are_in_order(shared: Path, name: str) -> None:
    images = torch.from_numpy(np.load(shared / "checkpoints" / name / "io.npz")["images"])
    source = Faces()
    masks = source.segment(images, range(len(images)))
    parts = dict(zip([concept.name for concept in source.concepts], masks.unbind(1), strict=True))
    found = parts["face"].flatten(1).any(1)
    assert int(found.sum()) >= len(images) - 2
    rows = torch.arange(images.shape[2], dtype=torch.float32)[:, None]
    heights = {
        part: (parts[part] * rows).sum((1, 2)) / parts[part].sum((1, 2)) for part in ("brows", "eyes", "nose", "mouth")
    }
    stacked = torch.stack(list(heights.values()), 1)[found]
    assert bool((stacked.diff(dim=1) > 0).all()), "brows above eyes above nose above mouth"
    assert torch.equal(masks[1:2], source.segment(images[1:2], [1]))


@pytest.mark.skipif(bool(Faces.unavailable()), reason=Faces.unavailable() or "installed")
def test_no_face_is_seen_in_noise() -> None:
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert not Faces().segment(noise, range(8))[:, : len(PARTS)].any()
