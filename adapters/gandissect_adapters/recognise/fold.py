r"""Plain float32 weights out of reparametrised ones.

fold(state.tensors)                     # {"main.0.weight": …} instead of weight_orig / weight_u / weight_v
fold(state.tensors, r"main\.\d\.weight")    # … of transposed convolutions, whose matrix runs over dim 1
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from gandissect.errors import NotOpened

_LEFTOVERS = (".weight_u", ".weight_v", ".sv0", ".sn_sigma")
_ALIKE = 0.9  # cosine; vectors that belong to another matrix are at right angles but for chance


def fold(tensors: Mapping[str, Tensor], transposed: str = "") -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights with spectral and weight normalisation applied, float32, and a note on what was folded.

    Args:
        transposed: pattern of whole names of folded weights that are known to be those of transposed convolutions; "" for none.

    Raises:
        NotOpened: a weight is NaN or infinite, or does not go with the vectors beside it; the sentence names it.
    """
    turned = re.compile(transposed)
    plain = {name: _as_float(name, tensor) for name, tensor in tensors.items()}
    notes: list[str] = []
    for name in list(plain):
        if name.endswith(".weight_orig") and name[:-4] + "u" in plain:
            notes += _fold_spectral(plain, name, name[:-4] + "u", name[:-4] + "v", name[:-5], turned)
        elif name.endswith(".parametrizations.weight.original"):
            stem = name.removesuffix("original")
            base = name.removesuffix(".parametrizations.weight.original") + ".weight"
            if f"{stem}0._u" in plain:
                notes += _fold_spectral(plain, name, f"{stem}0._u", f"{stem}0._v", base, turned)
        elif name.endswith(".parametrizations.weight.original0") and name[:-1] + "1" in plain:
            base = name.removesuffix(".parametrizations.weight.original0") + ".weight"
            notes += _fold_weight_norm(plain, name, name[:-1] + "1", base)
        elif name.endswith(".weight_g") and name[:-1] + "v" in plain:
            notes += _fold_weight_norm(plain, name, name[:-1] + "v", name[:-2])
        elif name.endswith(".weight_bar") and name[:-3] + "u" in plain:
            notes += _fold_iterated(plain, name, name[:-3] + "u", name[:-4])
        elif name.endswith((".u0", ".sn_u")) and (weight := f"{_module_of(name)}.weight") in plain:
            notes += _fold_iterated(plain, weight, name, weight)
    for name in [name for name in plain if name.endswith(_LEFTOVERS)]:
        del plain[name]
    places: dict[str, int] = {}
    for index, name in enumerate(tensors):
        places.setdefault(_module_of(name), index)
    ordered = sorted(plain, key=lambda name: places.get(_module_of(name), 0))
    return {name: plain[name] for name in ordered}, tuple(dict.fromkeys(notes))


def _module_of(name: str) -> str:
    return name.split(".parametrizations.", maxsplit=1)[0] if ".parametrizations." in name else name.rpartition(".")[0]


def _as_float(name: str, tensor: Tensor) -> Tensor:
    if tensor.is_sparse or tensor.is_quantized:
        raise NotOpened(f"tensor {name!r} is sparse or quantised; save the network with plain float32 weights")
    if not tensor.numel() and tensor.dim() > 1:
        raise NotOpened(f"tensor {name!r} has shape {tuple(tensor.shape)}, which holds no number: the file is damaged")
    if not tensor.is_floating_point():
        return tensor
    plain = tensor.detach().to(torch.float32)
    if not bool(torch.isfinite(plain).all()):
        bad = int((~torch.isfinite(plain)).sum())
        raise NotOpened(
            f"{bad} of {plain.numel()} values of tensor {name!r} are NaN or infinite: training diverged; "
            "pass a checkpoint from before that"
        )
    return plain


def _fold_spectral(
    plain: dict[str, Tensor], original: str, u: str, v: str, target: str, turned: re.Pattern[str]
) -> list[str]:
    """W / sigma with the stored u and v, as torch does in eval mode (Miyato et al. 2018, eq. 8)."""
    weight, left = plain.pop(original), plain.pop(u).flatten()
    right = plain.pop(v).flatten() if v in plain else None
    known = bool(turned.pattern) and turned.fullmatch(target) is not None
    readings = _matrices(weight, len(left), known)
    if not readings:
        raise NotOpened(f"'{u}' has {len(left)} values, which are no side of '{original}' {tuple(weight.shape)}")
    if right is None or len(right) != readings[0].shape[1]:
        right = torch.nn.functional.normalize(readings[0].t() @ left, dim=0)
    matrix = next((reading for reading in readings if _fits(reading, left, right)), readings[0])
    plain[target] = weight / torch.dot(left, matrix @ right)
    return ["spectral norm folded into the weights"]


def _matrices(weight: Tensor, rows: int, transposed: bool) -> list[Tensor]:
    """What the matrix of ``weight`` with so many rows can be, the likelier first.

    It runs over dim 0, for transposed convolutions over dim 1: the length of u tells which, unless a convolution has as many inputs
    as outputs and nobody knows its kind.
    """
    sides = [dim for dim in range(min(weight.dim(), 2)) if weight.shape[dim] == rows]
    sides = sides[-1:] if transposed else sides if weight.dim() > 2 else sides[:1]
    return [weight.transpose(0, dim).reshape(rows, -1) for dim in sides]


def _fits(matrix: Tensor, u: Tensor, v: Tensor) -> bool:
    """Whether u and v are singular vectors of ``matrix``, which power iteration has made them: u is then W v but for its length."""
    return bool(torch.nn.functional.cosine_similarity(matrix @ v, u, dim=0) > _ALIKE)


def _fold_iterated(plain: dict[str, Tensor], original: str, start: str, target: str) -> list[str]:
    """W / sigma where every forward, in eval too, makes one power iteration from the stored u.

    So do BigGAN-PyTorch (``u0``), mimicry (``sn_u``) and the SAGAN of heykeetae (``weight_bar``): Miyato et al. 2018, algorithm 1,
    over dim 0 for every kind of layer.
    """
    weight, left = plain.pop(original), plain.pop(start).flatten()
    matrix = weight.reshape(len(weight), -1)
    if len(left) != len(matrix):
        raise NotOpened(f"'{start}' has {len(left)} values where '{original}' has {len(matrix)} rows")
    normalize = torch.nn.functional.normalize
    right = normalize(matrix.t() @ left, dim=0)
    product = matrix @ right
    plain[target] = weight / torch.dot(normalize(product, dim=0), product)
    return ["spectral norm folded into the weights"]


def _fold_weight_norm(plain: dict[str, Tensor], gain: str, direction: str, target: str) -> list[str]:
    """g · v / |v| (Salimans & Kingma 2016, eq. 2); the shape of g says over which dimensions |v| runs."""
    g, v = plain.pop(gain), plain.pop(direction)
    dims = [dim for dim in range(v.dim()) if g.dim() == v.dim() and g.shape[dim] == 1]
    over = dims or list(range(1, v.dim()))
    norm = v.norm() if g.numel() == 1 else torch.linalg.vector_norm(v, dim=over, keepdim=True)
    plain[target] = v * (g.reshape(norm.shape) if g.numel() == norm.numel() else g) / norm
    return ["weight norm folded into the weights"]
