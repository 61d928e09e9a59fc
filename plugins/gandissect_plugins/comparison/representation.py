"""How alike the layers of two networks arrange the same samples: centred kernel alignment of every pair of layers.

cka_table([rows_a1, rows_a2], [rows_b1]) # float64 [A, B], 1 for a rotation, about 0 for unrelated layers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Heatmap, Reference, Section, Tabs
from gandissect.comparer import Lineup

from .layers import TURNED, LayerComparer, LayersSeen

TITLE = "Similarity of the layers"
Rows = NDArray[np.float64]
MEANING = f"""
Centred kernel alignment (Kornblith et al. 2019) of the units' means over the image, on the first {TURNED} samples, with the unbiased
estimate of Song et al. 2012: 1 where one layer is a rotation of the other, about 0 for unrelated samples whatever the
layers' width. Two networks that are fed the same latents are aligned without having learned anything alike, the more the
nearer a layer is to the latent. *Beyond chance* is what is left after subtracting the alignment with the other network on
latents whose coordinates are exchanged and change their signs (the larger of two draws). Alignment does not need equal units: a
layer may hold the same content spread over other units, and then CKA is high where no unit has a counterpart.
"""


def cka_table(first: Sequence[Rows], second: Sequence[Rows]) -> Rows:
    """Debiased linear CKA of every layer of one network with every one of the other: float64 [A, B].

    The same as :func:`gandissect.metrics.cka`, with each layer's kernel made once.

    Args:
        first: float64 [n, U] for each layer, n ≥ 4.
        second: ditto, of the same samples.
    """
    a, b = (np.stack([_centred_kernel(rows).ravel() for rows in layers]) for layers in (first, second))
    return np.asarray(a @ b.T)


def _centred_kernel(rows: Rows) -> Rows:
    """A linear kernel [n, n], centred so that the scalar product of two is the unbiased HSIC, scaled to length 1; 0 where constant."""
    n = len(rows)
    centred = rows - rows.mean(0)
    kernel = centred @ centred.T
    np.fill_diagonal(kernel, 0.0)
    sums = kernel.sum(0)
    # Székely & Rizzo 2014, def. 2: the inner product of U-centred matrices is Song et al. 2012, eq. 5, times n (n − 3)
    kernel = kernel - (sums[:, None] + sums[None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(kernel, 0.0)
    length = float(np.linalg.norm(kernel))
    return np.asarray(kernel / length if length > 1e-12 else np.zeros_like(kernel))


class Representation(LayerComparer):
    """CKA of every layer of one network with every layer of the other."""

    name: ClassVar[str] = "layers"
    title: ClassVar[str] = TITLE
    order: ClassVar[int] = 310
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Kornblith, S. et al.", 2019, "Similarity of neural network representations revisited", "ICML"),
        Reference("Song, L. et al.", 2012, "Feature selection via dependence maximization", "JMLR 13"),
        Reference("Székely, G. J. & Rizzo, M. L.", 2014, "Partial distance correlation with methods for dissimilarities", "Ann. Stat. 42"),
    )  # fmt: skip

    def section(self, seen: Sequence[LayersSeen], lineup: Lineup) -> Section:
        return _section(seen, lineup)


def _section(seen: Sequence[LayersSeen], lineup: Lineup) -> Section:
    a, b = lineup.names
    m = len(seen[0].layers[0].turned)
    plain = [[layer.rows[:m] for layer in one.layers] for one in seen]
    turned = [[layer.turned for layer in one.layers] for one in seen]
    values = cka_table(plain[0], plain[1])
    chance = np.maximum(cka_table(plain[0], turned[1]), cka_table(turned[0], plain[1]))
    names = [tuple(layer.layer.name for layer in one.layers) for one in seen]
    row, column = (int(place) for place in np.unravel_index(int((values - chance).argmax()), values.shape))
    first, second = names[0][row], names[1][column]
    pair = f"{first} of both" if first == second else f"{first} of {a} and {second} of {b}"
    text = f"The layers furthest beyond chance, {pair}: CKA {values[row, column]:.2f}, {chance[row, column]:.2f} by chance."
    where = f"Rows: layers of {a}; columns: layers of {b}."
    maps = [
        Heatmap(
            shown,
            names[0],
            names[1],
            f"{what} of the layers of {a} (rows) and of {b} (columns)",
            signed=signed,
            unit=unit,
            caption=where,
        )
        for shown, what, signed, unit in (
            (np.clip(values, 0.0, None), "similarity", False, "CKA"),
            (values - chance, "similarity beyond chance", True, "CKA beyond chance"),
        )
    ]
    return Section(TITLE, Tabs(("CKA", "beyond chance"), tuple(maps)), summary=text, meaning=MEANING)
