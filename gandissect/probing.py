"""What a network can do, found by running it once, never assumed.

gan = build_gan(Networks(generator=module, latent=LatentSpace("z", (100, 1, 1))), name="mine", opening=Opening(...))
gan.generator.layers                     # every layer that could be read
gan.capabilities.edits                   # an edit of a layer changed the image
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from gandissect import sampling
from gandissect.adapter import Networks
from gandissect.borrow import borrowed
from gandissect.errors import NotOpened
from gandissect.gan import Capabilities, Discriminator, Gan, Generator, LayerInfo, Opening
from gandissect.tap import tap

PROBES = 8
MIXING = ("Conv", "Linear", "Bilinear")
"""Modules whose names contain one of these start a new stage: what follows up to the next one is normalisation and activation."""
RESHAPING = ("Up", "Flatten", "Unflatten", "View", "Reshape", "Embedding", "Dropout")


@dataclass
class _Call:
    """One call of one leaf module while the network was watched."""

    name: str
    module: nn.Module
    output: Tensor
    inputs: list[Tensor] = field(default_factory=list)


def _watch(net: nn.Module, run: Callable[[], Tensor], also: Collection[str] = ()) -> tuple[list[_Call], Tensor]:
    """Every call of a leaf module, or one named in ``also``, that gives one tensor, and the network's output.

    In order of execution: a composite module comes after its parts.
    """
    calls: list[_Call] = []
    counts: Counter[str] = Counter()

    def seen(name: str, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        number = counts[name]
        counts[name] += 1
        if isinstance(output, Tensor):
            inputs = [arg for arg in args if isinstance(arg, Tensor)]
            calls.append(_Call(f"{name}@{number}" if number else name, module, output, inputs))

    with ExitStack() as hooks:
        for name, module in net.named_modules():
            if name and (name in also or not any(True for _ in module.children())):
                hooks.callback(module.register_forward_hook(partial(seen, name)).remove)
        output = run()
    return calls, output


def probe_layers(
    net: nn.Module, run: Callable[[], Tensor], *, editable: bool = True, main: Collection[str] = ()
) -> tuple[LayerInfo, ...]:
    """The layers of ``net`` that could be read, with their sizes, connections and whether an edit has an effect.

    Args:
        net: a module whose leaf modules are watched.
        run: calls the network on the same few samples each time; its result requires a gradient history when
            connections are to be found through functional operations (``torch.add`` and the like).
        editable: try an edit of every layer (one forward pass each).
        main: modules, composite ones too, to be marked main; where empty, the last layer of each stage is.
    """
    calls, output = _watch(net, run, main)
    batch = len(output)
    calls = [call for call in calls if call.output.dim() in (2, 4) and len(call.output) == batch]
    sources = _connections(calls)
    reference = output.detach().clone()
    layers = []
    for call, inputs in zip(calls, sources, strict=True):
        shape = tuple(call.output.shape[1:])
        height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        info = LayerInfo(
            call.name,
            type(call.module).__name__,
            shape[0],
            height,
            width,
            parameters=sum(p.numel() for p in call.module.parameters()),
            inputs=inputs,
            editable=editable and _edit_works(net, run, call.name, reference),
        )
        layers.append(info)
    if main:
        return tuple(replace(info, main=info.name in main and info.editable) for info in layers)
    return _mark_main(layers, [call.module for call in calls])


def _edit_works(net: nn.Module, run: Callable[[], Tensor], name: str, reference: Tensor) -> bool:
    """Adding to that layer's output changes the network's output."""
    with torch.no_grad(), tap(net, [name], lambda _name, act: act * 0.5 + 1.0):
        return not torch.equal(run(), reference)


def _connections(calls: Sequence[_Call]) -> list[tuple[str, ...]]:
    """For each call the calls that feed it: by the identity of tensors, else by walking the gradient history back."""
    maker: dict[int, str] = {}
    history: dict[object, str] = {}
    sources: list[tuple[str, ...]] = []
    for position, call in enumerate(calls):
        found: list[str] = []
        for tensor in call.inputs:
            if id(tensor) in maker:
                found.append(maker[id(tensor)])
            elif tensor.grad_fn is not None:
                found += _walk(tensor.grad_fn, history)
        if not found and position and all(tensor.grad_fn is None for tensor in call.inputs):
            found = [calls[position - 1].name]  # no history to follow: what ran before it
        sources.append(tuple(dict.fromkeys(found)))
        maker[id(call.output)] = call.name
        if call.output.grad_fn is not None:
            history[call.output.grad_fn] = call.name
    return sources


def _walk(start: object, history: dict[object, str]) -> list[str]:
    """Names of the nearest known calls behind a node of the autograd graph."""
    found: list[str] = []
    seen: set[object] = set()
    stack = [start]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in history:
            found.append(history[node])
        else:
            stack += [parent for parent, _ in getattr(node, "next_functions", ())]
    return sorted(found)


def _mark_main(layers: list[LayerInfo], modules: Sequence[nn.Module]) -> tuple[LayerInfo, ...]:
    """Mark the last layer of each stage but the one that makes the output.

    A stage starts at a module that mixes units (convolution, linear). Reshaping and upsampling that follow an activation
    belong to the stage but are not its last layer: an upsampled map holds nothing that the map did not.
    """
    stages: list[list[int]] = []
    for position, module in enumerate(modules):
        kind = type(module).__name__
        if any(word in kind for word in MIXING):
            stages.append([])
        if stages and not any(word in kind for word in RESHAPING):
            stages[-1].append(position)
    last = {stage[-1] for stage in stages[:-1] if stage}
    return tuple(replace(info, main=position in last and info.editable) for position, info in enumerate(layers))


def build_gan(networks: Networks, *, name: str, opening: Opening) -> Gan:
    """A Gan from what an adapter found: both networks are run on a few samples, and what was seen is what it says.

    Raises:
        NotOpened: there is no generator, it does not run on its latent, or it does not make images.
    """
    if networks.generator is None or networks.latent is None:
        raise NotOpened(f"no generator in {name}: gandissect explains generators; pass the generator's checkpoint")
    modules = [module for module in (networks.generator, networks.discriminator) if module is not None]
    with borrowed(*modules):
        generator, images, notes = _probe_generator(networks, name)
        can = _generator_capabilities(generator)
        discriminator = None
        if networks.discriminator is not None:
            discriminator = _probe_discriminator(networks, images, generator)
            can = replace(can, discriminator=True, discriminator_gradients=_has_gradient(discriminator, images))
    found = replace(opening, notes=(*opening.notes, *notes))
    return Gan(name, generator, discriminator, can, found)


def _probe_generator(networks: Networks, name: str) -> tuple[Generator, Tensor, list[str]]:
    module, latent = networks.generator, networks.latent
    assert module is not None and latent is not None
    draft = Generator(module, (), latent, (1, 1, 1), num_classes=networks.num_classes)
    z = sampling.latents(0, range(PROBES), latent).reshape(PROBES, *latent.shape).to(draft.device)
    labels = (torch.arange(PROBES, device=z.device) % networks.num_classes,) if networks.num_classes else ()
    try:
        with torch.no_grad():
            raw = module(z, *labels)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotOpened(
            f"the generator in {name} does not run on a latent of shape {latent.shape}: {reason}"
        ) from error
    shape = _image_shape(raw, networks, name)
    low, high, notes = _output_range(raw, networks)
    generator = Generator(
        module, (), latent, shape, output_range=(low, high), num_classes=networks.num_classes, inner=networks.inner
    )
    start = z.clone().requires_grad_()
    generator.layers = probe_layers(module, lambda: _first_tensor(module(start, *labels)), main=networks.main_layers)
    with torch.no_grad():
        images = generator(z, *labels)
    return generator, images, notes


def infer_image_shape(networks: Networks) -> tuple[int, int, int]:
    """(C, H, W) of the images that the generator makes, found by running it on two latents."""
    assert networks.generator is not None and networks.latent is not None
    if networks.image_shape is not None:
        return networks.image_shape
    z = sampling.latents(0, range(2), networks.latent).reshape(2, *networks.latent.shape)
    labels = (torch.zeros(2, dtype=torch.int64),) if networks.num_classes else ()
    with borrowed(networks.generator), torch.no_grad():
        return _image_shape(networks.generator(z, *labels), networks, "the checkpoint")


def _first_tensor(output: object) -> Tensor:
    if isinstance(output, (tuple, list)):
        output = output[0]
    if not isinstance(output, Tensor):
        raise NotOpened(f"the network returns {type(output).__name__}; expected a tensor")
    return output


def _image_shape(raw: object, networks: Networks, name: str) -> tuple[int, int, int]:
    """(C, H, W) of what the generator made: given, or [N, C, H, W], or a vector that is one square image."""
    out = _first_tensor(raw)
    if not torch.isfinite(out).all():
        raise NotOpened(f"the generator in {name} gives NaN or infinite images: its weights are damaged")
    if networks.image_shape is not None:
        return networks.image_shape
    if out.dim() == 4 and out.shape[1] in (1, 2, 3, 4):
        return int(out.shape[1]), int(out.shape[2]), int(out.shape[3])
    if out.dim() == 2:
        for channels in (1, 3):
            side = round((out.shape[1] / channels) ** 0.5)
            if side > 3 and channels * side * side == out.shape[1]:
                return channels, side, side
    raise NotOpened(
        f"{name} is not an image generator: on a latent it gives shape {tuple(out.shape[1:])}, expected (C, H, W) with C = 1 or 3"
    )


def _output_range(raw: object, networks: Networks) -> tuple[float, float, list[str]]:
    """The span of the generator's own output: given, or told from what it made."""
    if networks.output_range is not None:
        return (*networks.output_range, [])
    out = _first_tensor(raw)
    low, high = float(out.min()), float(out.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0, []
    if low >= -1.001 and high <= 1.001:
        return -1.0, 1.0, []
    if low >= 0 and 2 < high <= 255.5:
        return 0.0, 255.0, [f"the generator's output spans {low:.0f} to {high:.0f}; it is read as 0 to 255"]
    note = f"the generator's output spans {low:.2f} to {high:.2f} without a final squashing; it is clipped to -1 to 1"
    return -1.0, 1.0, [note]


def _generator_capabilities(generator: Generator) -> Capabilities:
    z = sampling.latents(0, range(2), generator.latent).to(generator.device).requires_grad_()
    gradients = False
    try:
        images = generator(z)
        gradients = images.requires_grad and bool(torch.autograd.grad(images.sum(), z)[0].abs().sum() > 0)
    except RuntimeError:
        gradients = False
    with torch.no_grad():
        same = torch.equal(generator(z), generator(z))
    return Capabilities(
        hooks=bool(generator.layers),
        edits=any(info.editable for info in generator.layers),
        gradients=gradients,
        labels=generator.num_classes > 0,
        deterministic=same,
    )


def _probe_discriminator(networks: Networks, images: Tensor, generator: Generator) -> Discriminator:
    module = networks.discriminator
    assert module is not None
    classes = networks.discriminator_classes
    labels = (torch.arange(len(images), device=images.device) % classes,) if classes else ()
    flatten = _takes_vectors(module, images, labels)
    low, high = generator.output_range if generator.output_range in ((0.0, 1.0), (0.0, 255.0)) else (-1.0, 1.0)
    draft = Discriminator(
        module, (), generator.image_shape, input_range=(low, high), flatten=flatten, num_classes=classes
    )
    with torch.no_grad():
        raw = draft(images)
    output = networks.discriminator_output or ("probability" if _ends_in_sigmoid(module) else "logit")
    if not torch.isfinite(raw).all():
        raise NotOpened("the discriminator gives NaN or infinite scores: its weights are damaged")
    start = images.detach().clone().requires_grad_()
    draft.layers = probe_layers(module, lambda: draft(start), editable=True, main=networks.discriminator_layers)
    draft.output = output
    return draft


def _takes_vectors(module: nn.Module, images: Tensor, labels: tuple[Tensor, ...]) -> bool:
    """The discriminator wants [N, C*H*W]: it fails on images and runs on vectors."""
    with torch.no_grad():
        try:
            module(images, *labels)
            return False
        except Exception as error:
            try:
                module(images.flatten(1), *labels)
                return True
            except Exception:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise NotOpened(
                    f"the discriminator does not run on the generator's images {tuple(images.shape[1:])}: {reason}"
                ) from error


def _ends_in_sigmoid(module: nn.Module) -> bool:
    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    return bool(leaves) and isinstance(leaves[-1], nn.Sigmoid)


def _has_gradient(discriminator: Discriminator, images: Tensor) -> bool:
    start = images.detach().clone().requires_grad_()
    try:
        scores = discriminator(start)
        return scores.requires_grad and torch.autograd.grad(scores.sum(), start)[0] is not None
    except RuntimeError:
        return False
