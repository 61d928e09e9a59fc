"""The parts of a face and the person around it.

Faces().segment(images, range(len(images)))         # bool [N, K, H, W]; nothing in samples without a face
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gandissect.concepts import Concept
from gandissect.errors import UsageError

from .face_models import FaceModels, lacking
from .networks import ImageByImage

# Points of the 468-point face mesh that go around each part, by their numbers in its canonical model.
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172,
    58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
BROWS = ((46, 53, 52, 65, 55, 107, 66, 105, 63, 70), (276, 283, 282, 295, 285, 336, 296, 334, 293, 300))
NOSE = (168, 193, 122, 198, 209, 129, 98, 97, 2, 326, 327, 358, 429, 420, 351, 417)
MOUTH = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
PARTS = ("face", "eyes", "brows", "nose", "mouth", "skin")
AROUND = ("person", "hair and body", "background")
_FINER = 4  # a polygon is drawn this much larger, and holds the pixels of which it covers half


class Outline(NamedTuple):
    """Where the parts of one face are, bool [H, W] each."""

    face: Tensor
    eyes: Tensor
    brows: Tensor
    nose: Tensor
    mouth: Tensor

    def planes(self) -> Tensor:
        """bool [6, H, W] in the order of ``PARTS``; skin is the face without eyes, brows and mouth."""
        return torch.stack([*self, self.face & ~(self.eyes | self.brows | self.mouth)])


class Faces(ImageByImage):
    """Face, eyes, brows, nose, mouth and skin from a face mesh; person, hair and body, background from a person segmenter.

    A sample in which the detector sees no face has none of the parts. The person segmenter looks at every sample, but where it
    does not take the face that was found for a person it is not believed: that sample has neither person nor background.

    References:
        Bazarevsky et al. 2019, BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs; Kartynnik et al. 2019, Real-time
        Facial Surface Geometry from Monocular Video on Mobile GPUs.
    """

    name = "faces"

    def __init__(self, argument: str = "", *, models: FaceModels | None = None) -> None:
        """``models`` are those installed where left out.

        Raises:
            UsageError: they or what runs them are missing, or something follows ``faces:``.
        """
        if argument:
            raise UsageError(f"faces takes no argument, got {argument!r}; type --concepts faces")
        self._models = models or FaceModels.installed()
        self._names = (*PARTS, *AROUND) if self._models.sees_persons else PARTS

    @classmethod
    def unavailable(cls) -> str:
        return lacking()

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "face" if name in PARTS else "person") for name in self._names)

    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Masks; the scores are the masks, for the networks give no slope."""
        picture = image.cpu().float() / (255 if image.dtype == torch.uint8 else 1)
        height, width = int(picture.shape[1]), int(picture.shape[2])
        mesh = self._models.mesh(picture)
        parts = torch.zeros(len(PARTS), height, width, dtype=torch.bool)
        if mesh is not None:
            parts = outline(mesh, height, width).planes()
        masks = torch.cat([parts, *self._around(picture, parts[0])]).to(image.device)
        return masks, masks.float()

    def _around(self, picture: Tensor, face: Tensor) -> Sequence[Tensor]:
        """Person, hair and body, background: bool [3, H, W]; empty where half of the face was not taken for a person."""
        likely = self._models.person(picture)
        if likely is None:
            return ()
        person = likely > 0.5
        missed = bool(face.any()) and float(person[face].float().mean()) < 0.5
        planes = torch.stack([person, person & ~face, ~person])
        return (torch.zeros_like(planes) if missed else planes,)

    def soft(self, images: Tensor) -> None:
        """None: these networks run outside torch, where nothing has a gradient."""
        return


def outline(mesh: Tensor, height: int, width: int) -> Outline:
    """The parts of the face whose mesh is float [468, 2] in pixels, on an image of this size."""

    def inside(*polygons: Sequence[int]) -> Tensor:
        return torch.stack([_filled(mesh[list(polygon)], height, width) for polygon in polygons]).any(0)

    return Outline(inside(OVAL), inside(*EYES), inside(*BROWS), inside(NOSE), inside(MOUTH))


def _filled(corners: Tensor, height: int, width: int) -> Tensor:
    """The pixels of which a polygon float [M, 2] of (x, y) covers half or more: bool [H, W]."""
    canvas = Image.new("L", (width * _FINER, height * _FINER))
    fine = [(float(x) * _FINER - 0.5, float(y) * _FINER - 0.5) for x, y in corners.tolist()]
    ImageDraw.Draw(canvas).polygon(fine, fill=1)
    covered = np.asarray(canvas, dtype=np.float32).reshape(height, _FINER, width, _FINER).mean((1, 3))
    return torch.from_numpy(covered >= 0.5)
