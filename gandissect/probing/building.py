"""What a network can do, found by running it once, never assumed.

gan = build_gan(Networks(generator=module, latent=LatentSpace("z", (100, 1, 1))), name="mine", opening=Opening(...))
gan.generator.layers                     # every layer that could be read
gan.capabilities.edits                   # an edit of a layer changed the image
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from gandissect import sampling
from gandissect.adapter import Networks
from gandissect.borrow import borrowed
from gandissect.errors import NotOpened
from gandissect.gan import Capabilities, Discriminator, Gan, Generator, Opening
from gandissect.probing.latents import first_line
from gandissect.probing.layers import TRIED, probe_layers
from gandissect.probing.surveying import Run, Survey, survey

PROBES = 8
AFFORDABLE = 7.5e9
"""Multiply-adds that trying an edit of each layer may cost, about a quarter of a second on one CPU core."""
ENCODES = 0.5
"""Correlation of latents with what an encoder makes of their images from which on it is believed."""
_LARGE = 3 * 2**15  # numbers in an image from which on one sample must do for a first look


def build_gan(networks: Networks, *, name: str, opening: Opening) -> Gan:
    """A Gan from what an adapter found: both networks are run on a few samples, and what was seen is what it says.

    Raises:
        NotOpened: there is no generator, it does not run on its latent, or it does not make images.
    """
    if networks.generator is None or networks.latent is None:
        raise NotOpened(f"no generator in {name}: gandissect explains generators; pass the generator's checkpoint")
    known = (networks.generator, networks.discriminator, networks.encoder)
    modules = [module for module in known if module is not None]
    with borrowed(*modules):
        generator, images, can, notes = _probe_generator(networks, name)
        notes += _probe_encoder(networks.encoder, generator, images)
        discriminator = None
        if networks.discriminator is not None:
            discriminator, graded = _probe_discriminator(networks, images, generator)
            can = replace(can, discriminator=True, discriminator_gradients=graded)
    found = replace(opening, notes=(*opening.notes, *notes))
    return Gan(name, generator, discriminator, can, found)


def _probe_generator(networks: Networks, name: str) -> tuple[Generator, Tensor, Capabilities, list[str]]:
    module, latent = networks.generator, networks.latent
    assert module is not None and latent is not None
    draft = Generator(module, (), latent, (1, 1, 1), num_classes=networks.num_classes)
    z = sampling.latents(0, range(PROBES), latent).reshape(PROBES, *latent.shape).to(draft.device)

    def run(net: nn.Module, x: Tensor) -> Tensor:
        labels = (torch.arange(len(x), device=x.device) % networks.num_classes,) if networks.num_classes else ()
        return _first_tensor(net(x, *labels))

    try:
        seen = _first_look(module, run, z, networks.main_layers, networks.image_shape)
        heavy = _is_heavy(seen)
        z = z[: len(seen.output)] if heavy else z
        with torch.no_grad():
            raw = seen.output if heavy else run(module, z)
    except Exception as error:
        raise NotOpened(
            f"the generator in {name} does not run on a latent of shape {latent.shape}: {first_line(error)}"
        ) from error
    shape = _image_shape(raw, networks, name)
    low, high, notes = _output_range(raw, networks)
    generator = Generator(
        module, (), latent, shape, output_range=(low, high), num_classes=networks.num_classes, inner=networks.inner
    )
    generator.layers = probe_layers(module, run, z, seen, main=networks.main_layers, trusting=heavy)
    if not heavy:
        return generator, generator.as_images(raw), _generator_capabilities(generator), notes
    can = _capabilities(generator, gradients=seen.sensitive, same=seen.repeatable)
    notes = [*notes, "it is large: what can be edited was read from one run's graph, not tried layer by layer"]
    return generator, generator.as_images(raw), can, notes


def _probe_encoder(encoder: nn.Module | None, generator: Generator, images: Tensor) -> list[str]:
    """Give ``generator`` its encoder where that finds the latents of its ``images`` again; what was seen, in words."""
    if encoder is None:
        return []
    latents = sampling.latents(0, range(len(images)), generator.latent)
    generator.encoder = encoder
    try:
        with torch.no_grad():
            found = generator.encode(images.to(generator.device)).cpu()
        if found.shape != latents.shape:
            raise ValueError(f"it gives {tuple(found.shape)} for latents {tuple(latents.shape)}")
    except Exception as error:
        generator.encoder = None
        return [f"the encoder was left out: {first_line(error)}"]
    alike = agreement(found, latents)
    said = f"the correlation of {len(images)} samples' latents with what it makes of their images is {alike:.2f}"
    if alike >= ENCODES:
        return [f"there is an encoder: {said}"]
    generator.encoder = None
    return [f"the encoder was left out: {said}"]


def agreement(found: Tensor, latents: Tensor) -> float:
    """Pearson's correlation of all coordinates of what an encoder found with the latents that were there; −1 where it is no number."""
    both = torch.stack([found.flatten(), latents.flatten()])
    return float(torch.corrcoef(both)[0, 1].nan_to_num(-1.0))


def _first_look(
    net: nn.Module, run: Run, samples: Tensor, main: tuple[str, ...], image_shape: tuple[int, int, int] | None
) -> Survey:
    """A survey of two samples, that some networks squeeze less; of one where images are large, which saves memory."""
    if image_shape is None:
        with suppress(Exception):  # such a network
            alone = survey(net, run, samples[:1], main)
            if alone.output.numel() > _LARGE:
                return alone
    return survey(net, run, samples[: 1 if prod(image_shape or ()) > _LARGE else 2], main)


def _is_heavy(seen: Survey) -> bool:
    """Whether an edit of every layer would take too long."""
    return seen.effort * len(seen.calls) * TRIED > AFFORDABLE


def infer_image_shape(networks: Networks) -> tuple[int, int, int]:
    """(C, H, W) of the images that the generator makes, found by running it on one latent, or two where that fails."""
    assert networks.generator is not None and networks.latent is not None
    if networks.image_shape is not None:
        return networks.image_shape
    z = sampling.latents(0, range(2), networks.latent).reshape(2, *networks.latent.shape)
    labels = (torch.zeros(2, dtype=torch.int64),) if networks.num_classes else ()
    with borrowed(networks.generator), torch.no_grad():
        with suppress(Exception):  # it squeezes a batch of one
            alone = networks.generator(z[:1], *(part[:1] for part in labels))
            return _image_shape(alone, networks, "the checkpoint")
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
    return _capabilities(generator, gradients=gradients, same=same)


def _capabilities(generator: Generator, *, gradients: bool, same: bool) -> Capabilities:
    return Capabilities(
        hooks=bool(generator.layers),
        edits=any(info.editable for info in generator.layers),
        gradients=gradients,
        labels=generator.num_classes > 0,
        deterministic=same,
    )


def _probe_discriminator(networks: Networks, images: Tensor, generator: Generator) -> tuple[Discriminator, bool]:
    """The discriminator, and whether its score has a gradient."""
    module = networks.discriminator
    assert module is not None
    flatten, seen = _first_scores(networks, images, generator)

    def run(net: nn.Module, x: Tensor) -> Tensor:
        return _around(net, networks, generator, flatten=flatten)(x)

    draft = _around(module, networks, generator, flatten=flatten)
    if not torch.isfinite(seen.output).all():
        raise NotOpened("the discriminator gives NaN or infinite scores: its weights are damaged")
    heavy = _is_heavy(seen)
    draft.layers = probe_layers(module, run, images, seen, main=networks.discriminator_layers, trusting=heavy)
    draft.output = networks.discriminator_output or ("probability" if _ends_in_sigmoid(module) else "logit")
    return draft, seen.sensitive if heavy else _has_gradient(draft, images)


def _around(net: nn.Module, networks: Networks, generator: Generator, *, flatten: bool) -> Discriminator:
    """A discriminator of ``net`` whose scores are its raw output."""
    span = generator.output_range if generator.output_range in ((0.0, 1.0), (0.0, 255.0)) else (-1.0, 1.0)
    classes = networks.discriminator_classes
    return Discriminator(net, (), generator.image_shape, input_range=span, flatten=flatten, num_classes=classes)


def _first_scores(networks: Networks, images: Tensor, generator: Generator) -> tuple[bool, Survey]:
    """Whether the discriminator wants [N, C*H*W] (it fails on images and runs on vectors), and a survey of it."""
    module = networks.discriminator
    assert module is not None
    failed: Exception | None = None
    for flatten in (False, True):

        def run(net: nn.Module, x: Tensor, flatten: bool = flatten) -> Tensor:
            return _around(net, networks, generator, flatten=flatten)(x)

        try:
            return flatten, _first_look(module, run, images, networks.discriminator_layers, generator.image_shape)
        except Exception as error:
            failed = failed or error
    assert failed is not None
    raise NotOpened(
        f"the discriminator does not run on the generator's images {generator.image_shape}: {first_line(failed)}"
    ) from failed


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
