"""Every attention of a network while it runs: its map, its values, and a chance to change what comes of them.

def look(mixing):
    print(mixing.name, mixing.weights.shape)             # attn_block, [N, heads, queries, keys]

with attending(generator.module, look):
    generator(z)

An attention is known by what it does, not by names: a product of two tensors goes through a softmax, and the result is multiplied
with a third. What torch does in one call (fused attention, ``nn.MultiheadAttention``) is seen with its heads. Whatever writes the
softmax out by hand, or runs as compiled code, is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_PRODUCT = frozenset({"matmul", "bmm", "__matmul__", "__rmatmul__", "einsum", "baddbmm"})
_VIEWS = {
    "transpose",
    "permute",
    "view",
    "reshape",
    "contiguous",
    "swapaxes",
    "flatten",
    "squeeze",
    "unsqueeze",
    "expand",
    "__get__",
}
_CASTS = {
    "to",
    "float",
    "type_as",
    "clone",
    "dropout",
    "masked_fill",
    "clamp",
    "_unsafe_view",
    "_to_copy",
    "alias",
    "detach",
}
_SIGNS = {f"__{side}{sign}__" for side in ("", "r") for sign in ("mul", "add", "sub", "truediv")} | {
    "mul",
    "div",
    "add",
    "sub",
}
_KEEPS = frozenset(_VIEWS | _CASTS | _SIGNS)
_SOFTMAX = frozenset({"softmax", "_softmax"})
_FUSED = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
_MULTI_HEAD = signature(F.multi_head_attention_forward)


@dataclass(frozen=True)
class Mixing:
    """One attention at work.

    Attributes:
        name: the module in which values are mixed; ``attn@1`` for the second time in one pass.
        weights: float [N, heads, Q, K], how much each query takes from each key's place.
        values: float [N, heads, K, C], what there is to take.
        own: float […], what the network itself made of them, in its own order of axes.
        back: float [N, heads, Q, C], mixed values, to what takes the place of ``own``.
        groups: groups (windows) of tokens that attend within themselves in each sample, counted as heads; 0 where the batch of the
            attention is not that of the samples: N is then 1.
        extra: keys at the end that the layer adds to its tokens.
    """

    name: str
    weights: Tensor
    values: Tensor
    own: Tensor
    back: Callable[[Tensor], Tensor]
    groups: int = 1
    extra: int = 0

    def again(self) -> Tensor:
        """What ``own`` has to be: values mixed by the weights."""
        return self.back(self.weights @ self.values)


Look = Callable[[Mixing], Tensor | None]
"""Sees an attention; what it returns, [N, heads, Q, C], replaces the mixed values."""


@dataclass(frozen=True)
class _Product:
    """Attention weights […, Q, K] and values […, K, C] in a common order of axes, and the way from mixed values to the output."""

    weights: Tensor
    values: Tensor
    back: Callable[[Tensor], Tensor]
    extra: int = 0


class _Trace(TorchFunctionMode):
    """Follows products through softmaxes into further products."""

    def __init__(self, look: Look, where: Callable[[], str], batch: Callable[[], int], only: str | None) -> None:
        super().__init__()
        self._look, self._where, self._batch, self._only = look, where, batch, only
        self._stage: MutableMapping[Tensor, str] = WeakTensorKeyDictionary()
        self._seen: dict[str, int] = {}

    def reset(self) -> None:
        """A new pass begins."""
        self._stage.clear()
        self._seen.clear()

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given, name = dict(kwargs or {}), getattr(func, "__name__", "").partition(".")[0]
        out = func(*args, **given)
        if name in _FUSED and self._only not in (None, self._where()):
            return out
        if name == "multi_head_attention_forward" and isinstance(out, tuple):
            heads = _multi_head(args, given)
            return out if heads is None else (self._shown(heads, out[0]), *out[1:])
        if not isinstance(out, Tensor) or not args:
            return out
        if name == "scaled_dot_product_attention":
            product = _fused(args, given)
            return out if product is None else self._shown(product, out)
        stages = [self._stage.get(arg) if isinstance(arg, Tensor) else None for arg in args]
        if name in _SOFTMAX and stages[0] == "product":
            self._stage[out] = "weights"
        elif name in _PRODUCT and "weights" in stages:
            product = _product(name, args, stages.index("weights"))
            return out if product is None else self._shown(product, out)
        elif name in _PRODUCT:
            self._stage[out] = "product"
        elif name in _KEEPS and (stage := next((found for found in stages if found), None)):
            self._stage[out] = stage
        return out

    def _shown(self, product: _Product, out: Tensor) -> Tensor:
        """Let ``look`` see a product; the product, or what replaces it."""
        n, module = self._batch(), self._where()
        lead = product.weights.shape[:-2]
        groups = _groups(lead, n)
        if product.values.shape[:-2].numel() != lead.numel() or (lead.numel() % n and groups):
            return out
        count = self._seen.get(module, 0)
        self._seen[module] = count + 1
        weights, values = (
            part.reshape(n if groups else 1, -1, *part.shape[-2:]) for part in (product.weights, product.values)
        )

        def back(mixed: Tensor) -> Tensor:
            return product.back(mixed.reshape(*lead, *mixed.shape[-2:])).to(out)

        name = f"{module}@{count}" if count else module
        changed = self._look(Mixing(name, weights, values, out, back, groups, product.extra))
        return out if changed is None else back(changed)


def _groups(lead: Sequence[int], n: int) -> int:
    """Groups of tokens in each of ``n`` samples by axes [batch, …, heads]; 0 where they hold no whole number, 1 for one axis."""
    axes = list(lead)
    while axes and axes[0] == 1:
        axes = axes[1:]
    if len(axes) < 2 or n == 1:
        return 1
    groups, rest = divmod(prod(axes[:-1]), n)
    return 0 if rest else groups


def _same(x: Tensor) -> Tensor:
    return x


def _turned(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def _product(name: str, args: Sequence[object], place: int) -> _Product | None:
    """A matrix product or einsum of weights (argument ``place``) and values; None where it is none of those."""
    if name == "einsum":
        return _einsum(args, place)
    pair = [arg for arg in args if isinstance(arg, Tensor)]
    if len(pair) != 2 or len(args) != 2:
        return None
    left = (place == 0) != (name == "__rmatmul__")
    weights, values = pair[place], pair[1 - place]
    if weights.dim() < 3 or values.dim() < 3:
        return None
    if left:
        return _Product(weights, values, _same)
    return _Product(_turned(weights), _turned(values), _turned)


def _einsum(args: Sequence[object], place: int) -> _Product | None:
    if len(args) != 3 or not isinstance(args[0], str) or "." in args[0]:
        return None
    inputs, _, out = args[0].replace(" ", "").partition("->")
    terms = inputs.split(",")
    weights, values = args[place], args[3 - place]
    w, v = terms[place - 1], terms[2 - place]
    keys = [x for x in w if x in v and x not in out]
    queries = [x for x in w if x in out and x not in v]
    units = [x for x in v if x in out and x not in w]
    batch = [x for x in w if x in v and x in out]
    if (
        not isinstance(weights, Tensor)
        or not isinstance(values, Tensor)
        or not len(keys) == len(queries) == len(units) == 1
    ):
        return None
    if {*w, *v} != {*keys, *queries, *units, *batch}:
        return None
    common = [*batch, *queries, *units]
    back = [common.index(x) for x in out]
    return _Product(
        weights.permute([w.index(x) for x in (*batch, *queries, *keys)]),
        values.permute([v.index(x) for x in (*batch, *keys, *units)]),
        lambda x: x.permute(back),
    )


def _fused(args: Sequence[object], given: Mapping[str, object]) -> _Product | None:
    """softmax(q kᵀ · scale + mask) of a fused attention (Vaswani et al. 2017, eq. 1); None where no three tensors go in."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    told = {**dict(zip(names, args, strict=False)), **given}
    q, k, v = told["query"], told["key"], told["value"]
    if not (isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)):
        return None
    if told.get("enable_gqa"):
        k, v = (part.repeat_interleave(q.shape[-3] // part.shape[-3], -3) for part in (k, v))
    scale, mask = told.get("scale"), told.get("attn_mask")
    alike = q @ _turned(k) * (float(scale) if isinstance(scale, (int, float)) else q.shape[-1] ** -0.5)
    if told.get("is_causal"):
        mask = torch.ones_like(alike, dtype=torch.bool).tril()
    if isinstance(mask, Tensor):
        alike = alike.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else alike + mask
    return _Product(F.softmax(alike, -1), v, _same)


def _multi_head(args: Sequence[object], given: Mapping[str, object]) -> _Product | None:
    """Each head's weights and values, and the projection of all heads (Vaswani et al. 2017, section 3.2.2); None for static keys."""
    bound = _MULTI_HEAD.bind(*args, **given)
    bound.apply_defaults()
    told = bound.arguments
    if told["static_k"] is not None or told["static_v"] is not None:
        return None
    weights = F.multi_head_attention_forward(**{**told, "need_weights": True, "average_attn_weights": False})[1]
    assert weights is not None
    value, batched = told["value"], told["value"].dim() == 3
    units, bias = told["embed_dim_to_check"], told["in_proj_bias"]
    projection = told["v_proj_weight"] if told["use_separate_proj_weight"] else told["in_proj_weight"][-units:]
    v = F.linear(value if batched else value[:, None], projection, None if bias is None else bias[-units:])
    added = [] if told["bias_v"] is None else [told["bias_v"].expand_as(v[:1])]
    added += [torch.zeros_like(v[:1])] if told["add_zero_attn"] else []
    v = torch.cat([v, *added])
    values = v.reshape(*v.shape[:2], told["num_heads"], -1).permute(1, 2, 0, 3)

    def back(mixed: Tensor) -> Tensor:
        out = F.linear(mixed.permute(2, 0, 1, 3).flatten(2), told["out_proj_weight"], told["out_proj_bias"])
        return out if batched else out[:, 0]

    return _Product(weights if batched else weights[None], values, back, len(added))


@contextmanager
def attending(net: nn.Module, look: Look, *, batch: int | None = None, only: str | None = None) -> Generator[None]:
    """Call ``look`` at every attention of ``net`` for the block; nothing is left on the network afterwards.

    Args:
        net: the module that will be called.
        look: sees each attention, and may replace what comes of it.
        batch: samples in a pass; the length of the first tensor that goes in where left out.
        only: the module whose attention is wanted: the weights of fused ones elsewhere are not worked out, and ``look`` misses them.
    """
    running: list[str] = []
    size = [batch or 1]

    def enter(name: str, _module: nn.Module, args: tuple[object, ...]) -> None:
        if not name:
            trace.reset()
            size[0] = batch or next((len(arg) for arg in args if isinstance(arg, Tensor) and arg.dim()), 1)
        running.append(name)

    def leave(_module: nn.Module, _args: object, _out: object) -> None:
        running.pop()

    trace = _Trace(look, lambda: running[-1] if running else "", lambda: size[0], only)
    with ExitStack() as hooks:
        for name, module in net.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(enter, name), prepend=True).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        hooks.enter_context(trace)
        yield
