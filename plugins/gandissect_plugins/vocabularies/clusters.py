"""A GAN's own kinds of surface: clusters of local colour and contrast in its first images.

found = Clusters().fitted(images)                   # float32 [N, C, H, W] in [-1, 1]
[concept.name for concept in found.concepts]        # ["cluster 1 (blue flat)", "cluster 2 (dark green textured)", ...]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Concept, Segmenter
from gandissect.properties import luminance

from .colours import colour_name
from .edges import box, gradients

CLUSTERS = 6
POINTS = 12_000
ROUNDS = 25
WIDTH = 0.1  # of a cluster, in the units of the descriptors, for soft scores
APART = 0.25  # least distance of two starts; images with less contrast than this have fewer clusters, or one
OPPONENT = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])  # light, red–green, yellow–blue


def descriptors(images: Tensor) -> Tensor:
    """Local lightness, two opponent colours (0 on grey images) and gradient strength: float [N, 4, H, W]."""
    rgb = images[:, :3].float().clamp(-1, 1)
    opponent = F.conv2d(
        rgb.expand(-1, 3, -1, -1) if rgb.shape[1] == 1 else rgb, OPPONENT[:, :, None, None].to(rgb.device)
    )
    energy = gradients(luminance(images.float())).square().sum(1, keepdim=True)
    means = box(torch.cat([opponent, energy], 1), 1)
    return torch.cat([means[:, :3], 4 * means[:, 3:].clamp(min=1e-12).sqrt()], 1)


class Clusters(Segmenter):
    """k-means of local descriptors (textons) fitted on the GAN's own first images; the same images give the same clusters.

    References:
        Leung & Malik 2001, Representing and Recognizing the Visual Appearance of Materials using Three-dimensional Textons.
    """

    name = "clusters"
    adapts = True

    def __init__(self, centres: Tensor | None = None, names: Sequence[str] = ()) -> None:
        self._centres = centres
        self._names = tuple(names) or tuple(f"cluster {number}" for number in range(1, CLUSTERS + 1))

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "cluster") for name in self._names)

    def fitted(self, images: Tensor) -> Clusters:
        """Clusters of these images, largest first, each named by its mean colour and texture."""
        maps = descriptors(images)
        points = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
        points = points[torch.linspace(0, len(points) - 1, min(POINTS, len(points))).round().long()]
        centres, owners = kmeans(points, CLUSTERS)
        order = torch.bincount(owners, minlength=len(centres)).argsort(descending=True, stable=True)
        centres = centres[order]
        names = [f"cluster {number} ({_looks(centre)})" for number, centre in enumerate(centres, 1)]
        return Clusters(centres, names)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, K, H, W]: each pixel in the nearest cluster; nothing before :meth:`fitted`."""
        if self._centres is None:
            return torch.zeros(len(images), len(self._names), *images.shape[2:], dtype=torch.bool)
        likeness = _likeness(images, self._centres)
        return likeness == likeness.amax(1, keepdim=True)

    def soft(self, images: Tensor) -> Tensor | None:
        """float32 [N, K, H, W]: how likely each cluster is under Gaussians of width ``WIDTH``; None before :meth:`fitted`."""
        return None if self._centres is None else (_likeness(images, self._centres) / WIDTH**2).softmax(1)


def _likeness(images: Tensor, centres: Tensor) -> Tensor:
    """−½|x − c|² without |x|², which is the same for all clusters: float [N, K, H, W] by one 1×1 convolution."""
    centres = centres.to(images.device)
    return F.conv2d(descriptors(images), centres[:, :, None, None], -0.5 * centres.square().sum(1))


def kmeans(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Centres float [k', D] and the owner of each point int64 [N] after Lloyd's algorithm.

    Starts are chosen farthest first from the point nearest to the mean (Gonzalez 1985), so nothing is
    random; fewer than ``k`` centres come back where the points are close together.
    """
    starts = [int((points - points.mean(0)).square().sum(1).argmin())]
    distance = (points - points[starts[0]]).square().sum(1)
    while len(starts) < k and float(distance.max()) > APART**2:
        starts.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[starts[-1]]).square().sum(1))
    centres = points[starts].double()
    owners = torch.zeros(len(points), dtype=torch.int64)
    for _ in range(ROUNDS):
        owners = torch.cdist(points.double(), centres).argmin(1)
        counts = torch.bincount(owners, minlength=len(centres)).clamp(min=1)
        moved = torch.zeros_like(centres).index_add_(0, owners, points.double()) / counts[:, None]
        moved[torch.bincount(owners, minlength=len(centres)) == 0] = centres[0]
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres.float(), owners


def _looks(centre: Tensor) -> str:
    """ "dark green textured" of a centre in the space of :func:`descriptors`."""
    light, red_green, yellow_blue, strength = (float(value) for value in centre)
    blue = light - 4 / 3 * yellow_blue
    red, green = (3 * light - blue) / 2 + red_green, (3 * light - blue) / 2 - red_green
    colour = colour_name([min(max((value + 1) / 2, 0.0), 1.0) for value in (red, green, blue)])
    shade = "" if colour in ("black", "white") else "dark " if light < -0.4 else "bright " if light > 0.4 else ""
    return f"{shade}{colour} {'textured' if strength > 0.16 else 'flat'}"
