"""State dicts of DCGAN-like networks: opened from names, shapes and BatchNorm statistics alone.

StateDictAdapter().open(peek("netG.pth"), Hints()).generator
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor

from gandissect.adapter import Adapter, Hints, Match, Networks, joined
from gandissect.errors import GandissectError, NotOpened, unknown_name
from gandissect.files.peek import Peek
from gandissect.files.peek import peek as look
from gandissect.files.reading import read_tensors
from gandissect.gan import Assumption
from gandissect.plugins import hookimpl
from gandissect.probing.building import infer_image_shape
from gandissect_adapters.families.opening import rebuild_discriminator, rebuild_generator
from gandissect_adapters.families.table import recognised
from gandissect_adapters.recognise.assume import KEYS, Assume
from gandissect_adapters.recognise.build import Rebuilt, main_layers
from gandissect_adapters.recognise.chain import Chain, NoChain, read_chain
from gandissect_adapters.recognise.discriminator import open_discriminator
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.generator import Found, open_generator
from gandissect_adapters.recognise.pairing import Partner, partner
from gandissect_adapters.recognise.refuse import refusal, shape_role
from gandissect_adapters.recognise.sizing import sized_by
from gandissect_adapters.recognise.unwrap import StateDict, find_networks
from gandissect_adapters.recognise.vae import decoder_of, encoder_for

_CONTAINERS = ("torch-zip", "torch-legacy", "safetensors", "pickle")
_RANGES: Mapping[str, tuple[float, float]] = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}
_JUDGED = 64  # generated images that a discriminator is sized and judged on


class StateDictAdapter(Adapter):
    """Opens bare state dicts and dicts of them: MLP, DCGAN and upsampling generators, with their discriminators."""

    name: ClassVar[str] = "state-dict"

    def match(self, peek: Peek) -> Match | None:
        """A fit wherever a plain mapping holds tensors; families with an adapter of their own score higher."""
        if peek.container not in _CONTAINERS:
            return None
        if _is_tensorflow(peek):
            return Match(0.9, "a pickle of TensorFlow networks")
        if not peek.tensors:
            return None
        if peek.metadata.get("root", "dict") not in ("dict", "OrderedDict") and not (peek.modules or _is_module(peek)):
            return None
        kinds = {len(spec.shape) for spec in peek.tensors.values()}
        norms = any(name.endswith("running_mean") for name in peek.tensors)
        if not kinds & {2, 4}:
            return Match(0.1, "named tensors, but no layer's weights")
        return Match(
            0.5 if norms else 0.4, f"a state dict of {len(peek.tensors)} tensors{' with BatchNorm' if norms else ''}"
        )

    def open(self, peek: Peek, hints: Hints) -> Networks:
        """The generator, and the discriminator where the same file holds one."""
        states, hints = _chosen(_networks(peek), hints)
        if networks := _of_a_family(states, hints):
            return networks
        if _is_module(peek):
            raise NotOpened(f"{peek.path} holds a pickled module of no known family; save `net.state_dict()` instead")
        assume = Assume.of(hints.assume)
        found, state = _first_generator(peek.path, states, assume)
        critics = [other for other in states if other.role == "discriminator" and other is not state]
        judge, told = (None, ()) if hints.discriminator_path else _partner(state.name, critics, hints)
        for critic in [judge] if judge else _critics_of(hints.discriminator_path, state.name, hints):
            if recognised(critic)[0] is None:  # families know their size themselves
                found = sized_by(critic, found, state, assume)
        networks = Networks(
            generator=found.module, latent=found.latent, image_shape=found.image_shape,
            output_range=_RANGES.get(found.output), num_classes=found.num_classes, family=found.family,
            assumptions=found.assumptions,
            verification=found.verification, mismatch=found.mismatch, notes=(*_average_note(state), *found.notes),
            main_layers=main_layers(found.chain, found.module) if isinstance(found.module, Rebuilt) else (),
            generators=_beside(state, states),
        )  # fmt: skip
        networks = _with_encoder(networks, state)
        if judge is None or hints.discriminator:
            return networks
        try:
            return joined(networks, _with(told, _judge(judge, networks, assume)))
        except NotOpened as error:
            return _left_out(networks, error)

    def open_discriminator(
        self, peek: Peek, hints: Hints, generator: Networks, image_shape: tuple[int, int, int]
    ) -> Networks:
        """The discriminator in a file of its own, sized by what ``generator`` draws.

        Raises:
            NotOpened: the file holds no discriminator for images of ``image_shape``.
        """
        states = _networks(peek)
        opened = generator.generators[0] if generator.generators else ""
        known = [state for state in states if recognised(state)[1] == "discriminator"]
        state, told = _partner(opened, known or _critics(states), hints)
        if state is None:
            raise NotOpened(f"{peek.path} holds no discriminator: no network in it ends in one number per image")
        family = recognised(state)[0]
        if family is not None and known:
            return _with(told, rebuild_discriminator(family, state, hints.assume, image_shape))
        try:
            sized = replace(generator, image_shape=image_shape)
            return _with(told, _judge(state, sized, Assume.of(_known(hints.assume))))
        except NotOpened as error:
            raise NotOpened(f"{peek.path}: {error}") from error


def _critics(states: list[StateDict]) -> list[StateDict]:
    """The discriminators among ``states``: those called so, then those whose shapes say so."""
    critics = [state for state in states if state.role == "discriminator"]
    critics += [state for state in states if state.role == "" and _shape_role(state) == "discriminator"]
    return critics or [state for state in states if _shape_role(state) == "discriminator"]


def _critics_of(path: Path | None, generator: str, hints: Hints) -> list[StateDict]:
    """The discriminator in another file, where it can be read; who opens it says what is wrong with it."""
    if path is None:
        return []
    try:
        found = _partner(generator, _critics(_networks(look(path))), hints)[0]
    except GandissectError:
        return []
    return [] if found is None else [found]


def _partner(generator: str, critics: list[StateDict], hints: Hints) -> tuple[StateDict | None, tuple[Assumption, ...]]:
    """The discriminator that judges what ``generator`` makes, and why that one where there are several; None where there is none.

    Raises:
        UnknownName: ``--assume discriminator-network=NAME`` names none of them.
    """
    names = [critic.name for critic in critics]
    wanted = {name.replace("_", "-"): value.strip() for name, value in hints.assume.items()}.get(
        "discriminator-network"
    )
    if wanted is not None and wanted not in names:
        raise unknown_name("discriminator", wanted, names, "in the file")
    if len(critics) < 2:
        return (critics[0] if critics else None), ()
    found = Partner(wanted, "said with --assume", True) if wanted is not None else partner(generator, names)
    return critics[names.index(found.name)], (found.assumption(),)


def _with(told: tuple[Assumption, ...], networks: Networks) -> Networks:
    return replace(networks, assumptions=(*told, *networks.assumptions))


def _known(given: Mapping[str, str]) -> dict[str, str]:
    """The assumptions that recognition asks for; a generator's family may have asked for others."""
    return {name: value for name, value in given.items() if name.replace("_", "-") in KEYS}


def _is_module(peek: Peek) -> bool:
    """Whether the file is one pickled module, which has its training flag on the outermost object."""
    return "training" in peek.metadata


def _of_a_family(states: list[StateDict], hints: Hints) -> Networks | None:
    """The first generator that a family claims (averaged ones come first), with its discriminator; None where none does."""
    claimed = [(state, *recognised(state)) for state in states]
    for state, family, role in claimed:
        if family is None or role != "generator":
            continue
        networks = rebuild_generator(family, state, hints.assume, [other for other in states if other is not state])
        networks = replace(networks, notes=(*_average_note(state), *networks.notes), generators=_beside(state, states))
        if hints.discriminator_path or hints.discriminator:
            return networks
        judge, told = _partner(state.name, [s for s, f, r in claimed if f is not None and r == "discriminator"], hints)
        return networks if judge is None else _with_family_discriminator(networks, judge, told, hints)
    return None


def _generators(states: list[StateDict]) -> list[StateDict]:
    """The generators of a file; averaged ones stand for those that they are averages of."""
    found = [state for state in states if (recognised(state)[1] or state.role) == "generator"]
    return [state for state in found if state.averaged] or found


def _beside(opened: StateDict, states: list[StateDict]) -> tuple[str, ...]:
    """Names of the generators of a file with several, the opened one first."""
    others = [state.name for state in _generators(states) if state.name != opened.name]
    return (opened.name, *others) if others else ()


def _chosen(states: list[StateDict], hints: Hints) -> tuple[list[StateDict], Hints]:
    """The generator that ``--assume network=NAME`` names before all others, and the hints without it.

    Raises:
        UnknownName: no generator of that name in the file.
    """
    name = hints.assume.get("network")
    if name is None:
        return states, hints
    named = [state for state in states if state.name == name]
    if not named:
        raise unknown_name("network", name, [state.name for state in _generators(states)], "in the file")
    rest = {key: value for key, value in hints.assume.items() if key != "network"}
    return [*named, *(state for state in states if state.name != name)], replace(hints, assume=rest)


def _average_note(state: StateDict) -> tuple[str, ...]:
    used = f"averaged weights ('{state.name}') are used, not those of the last training step"
    return (used,) if state.averaged else ()


def _with_encoder(networks: Networks, state: StateDict) -> Networks:
    """The same networks with the encoder of an autoencoder, where it is a plain stack of linear layers."""
    shape, latent = networks.image_shape, networks.latent
    if not state.encoder or shape is None or latent is None or networks.generator is None:
        return networks
    found = encoder_for(state.encoder, networks.generator, latent.shape, shape)
    if found is None:
        said = "the file's encoder is no plain stack of linear layers and was left out"
        return replace(networks, notes=(*networks.notes, said))
    return replace(networks, encoder=found[0], assumptions=(*networks.assumptions, found[1]))


def _left_out(networks: Networks, error: NotOpened) -> Networks:
    return replace(networks, notes=(*networks.notes, f"the file's discriminator was left out: {error}"))


def _with_family_discriminator(
    networks: Networks, state: StateDict, told: tuple[Assumption, ...], hints: Hints
) -> Networks:
    family, shape = recognised(state)[0], infer_image_shape(networks)
    assert family is not None
    try:
        return joined(networks, _with(told, rebuild_discriminator(family, state, hints.assume, shape)))
    except NotOpened as error:
        return _left_out(networks, error)


def _is_tensorflow(peek: Peek) -> bool:
    """Whether the pickle names the network class of ProGAN, StyleGAN and StyleGAN2 for TensorFlow."""
    return any(re.fullmatch(r"(dnnlib\.tflib\.network|tfutil)\.Network", name) for name in peek.globals)


def _networks(peek: Peek) -> list[StateDict]:
    if _is_tensorflow(peek):
        raise NotOpened(
            f"{peek.path} is a TensorFlow pickle of NVlabs (ProGAN, StyleGAN or StyleGAN2), which holds no PyTorch weights; "
            "convert a StyleGAN2 with legacy.py of NVlabs/stylegan2-ada-pytorch and open what it writes"
        )
    tree = read_tensors(peek.path, peek.container)
    stem = peek.path.name.partition(".")[0]
    archive = peek.metadata.get("archive", "")
    found = find_networks(tree, stem)
    if not any(state.role for state in found) and archive not in ("", "archive", stem):
        found = find_networks(tree, archive)
    states = [part for s in found for part in ([s] if recognised(s)[1] else decoder_of(s) or [s])]
    if not states:
        raise NotOpened(
            f"{peek.path} holds no network: no mapping in it has named tensors; pass a generator's checkpoint"
        )
    return states


def _chain(state: StateDict) -> Chain | None:
    try:
        return read_chain(fold(state.tensors)[0], state.slots)
    except (NoChain, NotOpened):
        return None


def _shape_role(state: StateDict) -> str:
    chain = _chain(state)
    return shape_role(chain) if chain else ""


def _first_generator(path: Path, states: list[StateDict], assume: Assume) -> tuple[Found, StateDict]:
    """The first network that opens as a generator: those called so, then those of no name, averaged ones first."""
    ranked = [s for s in states if s.role == "generator"] + [s for s in states if s.role == ""]
    failed: list[NotOpened] = []
    for state in ranked or states:
        chain = _chain(state)
        if state.role == "discriminator" or (chain is not None and shape_role(chain) == "discriminator"):
            failed.append(refusal(path, state, chain, ""))
            continue
        try:
            return open_generator(state, assume), state
        except NoChain as error:
            failed.append(refusal(path, state, chain, str(error)))
        except NotOpened as error:
            if chain is None:  # a weight that is not finite
                raise NotOpened(f"{path}: {error}") from error
            failed.append(refusal(path, state, chain, str(error)))
    raise failed[0]


def _judge(state: StateDict, networks: Networks, assume: Assume) -> Networks:
    """The discriminator of ``state``, sized by what ``networks`` draw."""
    assert networks.image_shape is not None
    found = open_discriminator(state, networks.image_shape, _drawn(networks), assume)
    return Networks(
        discriminator=found.module, discriminator_output=found.output, discriminator_layers=found.main_layers,
        image_shape=networks.image_shape, assumptions=found.assumptions, notes=found.notes,
    )  # fmt: skip


@torch.no_grad()
def _drawn(networks: Networks) -> Tensor | None:
    """Images [64, C, H, W] of the generator, as it gives them; None where it cannot be drawn from simply."""
    generator, latent, shape = networks.generator, networks.latent, networks.image_shape
    if generator is None or latent is None or shape is None or networks.num_classes or latent.prior == "image":
        return None
    stream = torch.Generator().manual_seed(0)
    size = (_JUDGED, *latent.shape)
    z = (
        torch.rand(size, generator=stream) * 2.0 - 1.0
        if latent.prior == "uniform"
        else torch.randn(size, generator=stream)
    )
    return cast("Tensor", generator(z)).reshape(_JUDGED, *shape)


@hookimpl
def register_adapters() -> list[type[Adapter]]:
    """The adapter of this module."""
    return [StateDictAdapter]
