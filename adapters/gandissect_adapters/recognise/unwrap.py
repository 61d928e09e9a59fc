"""The networks in a checkpoint's nested mapping: averaged weights first, optimizers left out.

find_networks(read_tensors(path))       # [StateDict("g_ema", role="generator", tensors=…), …]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from torch import Tensor

from gandissect.files.records import Record

Role = Literal["generator", "discriminator", "other", ""]

# Containers met in the wild (census of 206 files): names of averaged generators come first.
_EMA = re.compile(
    r"(^|[._])(g_?ema|ema_?g\w*|generator_ema|generator_smooth|ema|netg_ema|params_ema|avgg|shadow_generator|g_running|ge|"
    r"ema_model|gen_ema)($|[._])",
    re.I,
)
_GENERATOR = re.compile(
    r"(^|[._])(_?g|_?generator\w*|_?gen|net_?g\w*|g_?net|model_?g|g_?model|g_state_dict|state_dict_?g|g_ema|avgg|decoder|"
    r"shadow_generator|g_running|ge|gen_\w*|g_[ab])($|[._])",
    re.I,
)
_DISCRIMINATOR = re.compile(
    r"(^|[._])(_?d|_?dis(c\w*|criminator\w*)?|net_?d\w*|d_?net|model_?d|d_?model|d_state_dict|state_dict_?d|_?critic\w*|"
    r"desc?riminator|d_[ab])($|[._])",
    re.I,
)
_NOT_NETWORKS = re.compile(
    r"(^|[._])(\w*optim\w*|opt_?[gd]?|[gd]_opt\w*|opt_\w+|scheduler\w*|scaler|[gd]_scaler|loss\w*)($|[._])", re.I
)
_PREFIXES = ("module.", "_orig_mod.")
_WRAPPERS = {"state_dict", "model_state_dict", "model", "params", "weights", "net", "network", "n_averaged"}
_BUFFER = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked|weight_u|weight_v)$")
_SPARE = re.compile(
    r"(fixed_?|test_?|sample_?|eval_?)?(noises?|z|latents?|seeds?)|(current_?|start_?|last_?|n_?)?(epochs?|iters?|iterations?|steps?)|"
    r"global_step|(\w+_)?loss(es)?(_\w+)?|lr|best_\w+|fid\w*",
    re.I,
)
_LEAF = re.compile(r"\.?(weight|bias|running_mean|running_var|num_batches_tracked)$")


@dataclass(frozen=True)
class StateDict:
    """The tensors of one network, and what is known of where they were.

    ``slots`` are the submodule paths of ``_metadata`` (parameterless ones included), None where it is lost. ``records`` say the
    class and attributes of every submodule where the file pickles whole modules. ``file`` is the mapping it was found in,
    ``around`` the flat state dict that it was split from (its own names there start with the last part of ``name``), ``encoder`` the
    tensors of an autoencoder before this decoder.
    """

    name: str
    tensors: Mapping[str, Tensor]
    slots: tuple[str, ...] | None = None
    role: Role = ""
    averaged: bool = False
    notes: tuple[str, ...] = field(default=())
    records: Mapping[str, Record] = field(default_factory=dict, repr=False)
    file: Mapping[str, object] = field(default_factory=dict, repr=False)
    around: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    encoder: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


def find_networks(tree: Mapping[str, object], file_hint: str = "") -> list[StateDict]:
    """Every network in ``tree``, averaged ones first.

    Args:
        tree: a checkpoint's mapping, nested as it was saved.
        file_hint: the file's stem; its words tell the role where the keys do not (``netG_epoch_3``).
    """
    found = [part for whole in _state_dicts(tree, "", 0) for part in split_networks(_strip(_lean(whole)))]
    found = [_with_buffers(net, found) for net in found]
    named = [replace(net, role=_role(net, file_hint if len(found) == 1 else ""), file=tree) for net in found]
    return sorted(named, key=lambda net: not net.averaged)


def _state_dicts(node: Mapping[str, object], path: str, depth: int) -> Iterator[StateDict]:
    """Mappings that directly hold tensors, as long as their names are not those of an optimizer."""
    if depth > 6 or _NOT_NETWORKS.search(path):
        return
    tensors = {str(key): value for key, value in node.items() if isinstance(value, Tensor)}
    if any(tensor.dim() >= 1 and tensor.numel() > 1 for tensor in tensors.values()):
        listed = getattr(node, "__dict__", {}).get("_metadata")
        slots = tuple(str(name) for name in dict.keys(listed) if name) if isinstance(listed, dict) else None
        records = getattr(node, "records", {})
        yield StateDict(path, tensors, slots, averaged=bool(_EMA.search(path)), records=records)
    for key, value in node.items():
        if isinstance(value, list) and _EMA.search(str(key)) and (named := _named(value, node)):
            yield StateDict(f"{path}.{key}" if path else str(key), named, averaged=True)
        for inside in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inside, Mapping):
                yield from _state_dicts(
                    cast("Mapping[str, object]", inside), f"{path}.{key}" if path else str(key), depth + 1
                )


def _named(average: list[object], beside: Mapping[str, object]) -> dict[str, Tensor] | None:
    """An averaged network saved as a bare list of its parameters: names, order and buffers are those of the network beside it.

    None where no mapping beside it has parameters of exactly these shapes in this order.
    """
    for other in beside.values():
        if not isinstance(other, Mapping) or not all(isinstance(tensor, Tensor) for tensor in other.values()):
            continue
        names = [name for name in other if not _BUFFER.search(name)]
        if average and [getattr(x, "shape", None) for x in average] == [other[name].shape for name in names]:
            return {**other, **{name: x for name, x in zip(names, average, strict=True) if isinstance(x, Tensor)}}
    return None


def _lean(net: StateDict) -> StateDict:
    """Without what training scripts keep among the weights: fixed latents, counters, histories of losses."""
    spare = [name for name in net.tensors if _SPARE.fullmatch(name)]
    if not spare or len(spare) == len(net.tensors):
        return net
    return replace(net, tensors={name: tensor for name, tensor in net.tensors.items() if name not in spare})


def _with_buffers(net: StateDict, found: list[StateDict]) -> StateDict:
    """An average of parameters alone, with the statistics of the network that it is the average of."""
    if not net.averaged or any(_BUFFER.search(name) for name in net.tensors):
        return net
    shapes = {name: tensor.shape for name, tensor in net.tensors.items()}
    for other in found:
        names = {name: tensor.shape for name, tensor in other.tensors.items() if not _BUFFER.search(name)}
        if other is not net and names == shapes and len(names) < len(other.tensors):
            note = f"'{net.name}' has no BatchNorm statistics; those of '{other.name}' are used"
            return replace(net, tensors={**other.tensors, **net.tensors}, slots=other.slots, notes=(*net.notes, note))
    return net


def _strip(net: StateDict) -> StateDict:
    """Without ``module.`` (DataParallel) and ``_orig_mod.`` (compile), where every tensor carries it."""
    for prefix in _PREFIXES * 2:
        tensors = {key: value for key, value in net.tensors.items() if key != "n_averaged"}  # AveragedModel's counter
        if tensors and all(key.startswith(prefix) for key in tensors):
            net = _within(net, prefix, tensors)
    return net


def _within(net: StateDict, prefix: str, tensors: Mapping[str, Tensor]) -> StateDict:
    """The part of ``net`` under ``prefix``, names relative to it."""
    size = len(prefix)
    slots = None if net.slots is None else tuple(s[size:] for s in net.slots if s.startswith(prefix) and len(s) > size)
    inside = {key[size:]: value for key, value in tensors.items() if key.startswith(prefix)}
    records = {path[size:]: record for path, record in net.records.items() if f"{path}.".startswith(prefix)}
    return replace(net, tensors=inside, slots=slots, records=records)


def split_networks(net: StateDict) -> list[StateDict]:
    """Generator and discriminator told apart where one flat state dict holds both."""
    heads = list(dict.fromkeys(key.partition(".")[0] for key in net.tensors if "." in key))
    roles = {head: name_role(head) for head in heads}
    averaged = {head for head in heads if _EMA.search(head)}
    if len(heads) < 2 or not ({"generator", "discriminator"} <= set(roles.values()) or averaged):
        return [net]
    parts: list[StateDict] = []
    for head in heads:
        if not roles[head] or _NOT_NETWORKS.search(head):
            continue
        part = replace(_within(net, f"{head}.", net.tensors), around=net.tensors)
        name = f"{net.name}.{head}" if net.name else head
        parts.append(replace(part, name=name, role=roles[head], averaged=net.averaged or head in averaged))
    return parts


def name_role(name: str) -> Role:
    """What a name says: generator, discriminator, or nothing."""
    if re.search(r"(^|[._])encoder", name, re.I):
        return "other"
    if _DISCRIMINATOR.search(name):
        return "discriminator"
    if _GENERATOR.search(name) or _EMA.search(name):
        return "generator"
    return ""


def _role(net: StateDict, file_hint: str) -> Role:
    if net.role:
        return net.role
    tail = [part for part in net.name.split(".") if part.lower() not in _WRAPPERS]
    for name in (*reversed(tail), net.name):
        if role := name_role(name):
            return role
    heads = {key.partition(".")[0] for key in net.tensors}
    roles = {name_role(head) for head in heads}
    if len(roles) == 1 and (role := roles.pop()):
        return role
    return name_role(re.sub(r"[-=\s\d]+", "_", file_hint)) if file_hint else ""
