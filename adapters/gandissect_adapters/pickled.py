"""Whole modules saved with ``torch.save(module)``: they hold a reference to code, so they open only when trusted.

PickledAdapter().open(peek("gan.pt"), Hints(trust=True)).generator
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from gandissect.adapter import Adapter, Hints, Match, Networks
from gandissect.borrow import borrowed
from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect.files.peek import Peek
from gandissect.gan import Assumption, LatentSpace
from gandissect.plugins import hookimpl
from gandissect.probing.latents import first_tensor, flat_image_shape, infer_latent, looks_like_images
from gandissect_adapters.recognise.pairing import partner
from gandissect_adapters.recognise.unwrap import name_role

_CONTAINERS = ("torch-zip", "torch-legacy", "pickle")
_TABLES = ("dict", "OrderedDict", "collections.OrderedDict", "list", "tuple")


class PickledAdapter(Adapter):
    """Finds the networks in a pickled object and tells generator from discriminator by running them."""

    name = "pickled-module"

    def match(self, peek: Peek) -> Match | None:
        """Fits files whose pickle names classes of torch.nn, or whose outermost object is of a class that is not Python's."""
        if peek.container not in _CONTAINERS or any("persistent_obj" in name for name in peek.globals):
            return None
        root = peek.metadata.get("root", "dict")
        layers = any(name.startswith("torch.nn.") and "Parameter" not in name for name in peek.globals)
        if layers or (root not in _TABLES and root in peek.globals):
            return Match(0.6, f"a pickled {root}", runs_code=True)
        return None

    def open(self, peek: Peek, hints: Hints) -> Networks:
        """The networks in the file.

        Raises:
            UnsafeCheckpoint: ``hints.trust`` is False.
            NotOpened: a package is missing, or nothing in the file makes images.
        """
        modules = list(_modules(_unpickled(peek, hints), "", 0))
        if not modules:
            raise NotOpened(f"{peek.path.name} holds no network: nothing in it is a torch.nn.Module")
        found = _generator(modules, hints)
        if found is None:
            names = ", ".join(f"{name or 'the file'} ({type(module).__name__})" for name, module in modules[:5])
            raise NotOpened(
                f"{peek.path.name} holds {names}, none of which makes images from a latent; "
                "pass --latent 100 if its shape is unusual"
            )
        name, generator, latent = found
        if hints.assume.get("prior") == "uniform":
            latent = LatentSpace(latent.name, latent.shape, "uniform")
        rest = [(other, module) for other, module in modules if not _overlap(module, generator)]
        rest, told = _paired(name, rest)
        discriminator = _discriminator(rest, generator, latent)
        return Networks(
            generator=generator,
            discriminator=discriminator,
            latent=latent,
            family=type(generator).__name__,
            assumptions=(
                Assumption("prior", latent.prior, "the file does not say; override with prior=uniform"),
                *told,
            ),
            verification="the pickled module itself, run because the file was trusted",
            notes=(f"generator is {name or 'the outermost object'}: {type(generator).__name__}",),
        )

    def open_discriminator(
        self, peek: Peek, hints: Hints, generator: Networks, image_shape: tuple[int, int, int]
    ) -> Networks:
        """The first network in the file that gives one score for each image of ``image_shape`` (C, H, W)."""
        modules = list(_modules(_unpickled(peek, hints), "", 0))
        for _, module in sorted(modules, key=lambda pair: name_role(pair[0]) != "discriminator"):
            if _scores(module, torch.zeros(2, *image_shape)):
                return Networks(discriminator=module, image_shape=image_shape)
        raise NotOpened(f"nothing in {peek.path.name} gives one score for each image of {image_shape}")


def _unpickled(peek: Peek, hints: Hints) -> object:
    """What the file holds; the classes it names are imported and run, so only when that was allowed."""
    names = ", ".join(peek.globals[:5]) or peek.metadata.get("root", "unknown classes")
    file = peek.path.name
    if not hints.trust:
        raise UnsafeCheckpoint(
            f"{file} is a pickled object that runs code when it is opened ({names}); "
            "pass --trust if you trust where it comes from, or save net.state_dict() and open that with --generator file.py:Class"
        )
    try:
        if peek.container == "pickle":
            with peek.path.open("rb") as stream:
                return cast("object", pickle.load(stream))  # hints.trust was checked above
        return cast("object", torch.load(peek.path, map_location="cpu", weights_only=False))
    except ModuleNotFoundError as error:
        raise NotOpened(
            f"{file} needs the package {error.name!r}, which defines its classes; install it, or put its folder on PYTHONPATH"
        ) from error
    except (ImportError, AttributeError) as error:
        raise NotOpened(
            f"{file} needs a class that its package does not have here ({error}); use the version it was saved with, "
            "or save net.state_dict() there and open that with --generator file.py:Class"
        ) from error
    except Exception as error:  # the file's own code may raise anything
        raise NotOpened(f"{file} cannot be unpickled: {type(error).__name__}: {error}") from error


def _modules(node: object, name: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """(dotted name, module) of every network in nested dicts, lists and attributes; a module's children after it."""
    if depth > 3:
        return
    children: Mapping[str, object] = {}
    if isinstance(node, nn.Module):
        yield name, node.float().eval()
        children = dict(node.named_children()) if depth < 2 else {}
    elif isinstance(node, dict):
        children = {str(key): value for key, value in node.items()}
    elif isinstance(node, (list, tuple)):
        children = {str(position): value for position, value in enumerate(node[:20])}
    elif hasattr(node, "__dict__") and not isinstance(node, type):
        children = vars(node)
    for key, child in children.items():
        yield from _modules(child, f"{name}.{key}" if name else key, depth + 1)


def _generator(modules: list[tuple[str, nn.Module]], hints: Hints) -> tuple[str, nn.Module, LatentSpace] | None:
    """The first module that makes images from a latent: those named so first, then in order."""
    order = {"generator": 0, "": 1, "other": 2, "discriminator": 3}
    for name, module in sorted(modules, key=lambda pair: order[name_role(pair[0])]):
        try:
            latent = infer_latent(module, hints.latent)
        except NotOpened:
            continue
        if looks_like_images(_images(module, latent)):
            return name, module, latent
    return None


def _images(module: nn.Module, latent: LatentSpace) -> Tensor | None:
    with borrowed(module), torch.no_grad():
        return first_tensor(module(torch.randn(2, *latent.shape)))


def _overlap(one: nn.Module, other: nn.Module) -> bool:
    """One holds the other."""
    return one in set(other.modules()) or other in set(one.modules())


def _paired(
    generator: str, modules: list[tuple[str, nn.Module]]
) -> tuple[list[tuple[str, nn.Module]], tuple[Assumption, ...]]:
    """The modules, the discriminator that judges what ``generator`` makes first, and why that one where there are several."""
    judges = [name for name, _ in modules if name_role(name.rpartition(".")[2]) == "discriminator"]
    if len(judges) < 2:
        return modules, ()
    found = partner(generator, judges)
    told = Assumption("discriminator network", found.name, found.because, found.sure)
    return sorted(modules, key=lambda pair: pair[0] != found.name), (told,)


def _discriminator(modules: list[tuple[str, nn.Module]], generator: nn.Module, latent: LatentSpace) -> nn.Module | None:
    images = _images(generator, latent)
    if images is None:
        return None
    if images.dim() == 2 and (shape := flat_image_shape(images.shape[1])) is not None:
        images = images.reshape(2, *shape)
    for _, module in sorted(modules, key=lambda pair: name_role(pair[0]) != "discriminator"):
        if _scores(module, images):
            return module
    return None


def _scores(module: nn.Module, images: Tensor) -> bool:
    """Whether the module takes [2, C, H, W] (or flattened) and gives something for each that is no image."""
    if not any(True for _ in module.parameters()):
        return False
    for given in (images, images.flatten(1)):
        try:
            with borrowed(module), torch.no_grad():
                output = first_tensor(module(given))
        except Exception:  # a module may fail in any way on what it was not made for
            continue
        if (
            output is not None
            and len(output) == 2
            and (output.dim() == 1 or output.shape[1] == 1)
            and output[0].numel() < images[0].numel() / 4
        ):
            return True
    return False


@hookimpl
def register_adapters() -> list[type[Adapter]]:
    """The adapter of this module."""
    return [PickledAdapter]
