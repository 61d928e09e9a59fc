"""What a graph is for: its latent or image input, its labels, and whether it does what its file does.

networks = generator_networks(graph, hints)
networks = discriminator_networks(graph, (3, 64, 64))
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gandissect.adapter import Hints, Networks
from gandissect.errors import NotOpened
from gandissect.gan import Assumption, LatentSpace
from gandissect.probing.latents import first_tensor, infer_latent, looks_like_images
from gandissect_adapters.graph.engine import padded
from gandissect_adapters.graph.graph import Graph, first_line
from gandissect_adapters.graph.native import make_native

SAMPLES = 4
TOLERANCE = 1e-5
_SIZES = (64, 128, 256, 32, 28, 16)


class OnlyDiscriminator(NotOpened):
    """The file holds a network of images in, scores out."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f"{file} is only a discriminator (images in, scores out); pass the generator's file and this one with --discriminator"
        )


def generator_networks(graph: Graph, hints: Hints) -> Networks:
    """The generator that ``graph`` is, verified against the file's own output.

    Raises:
        NotOpened: it is a discriminator, its input cannot be told, or interpreting it gives other images than the file.
    """
    num_classes = _label_count(graph, hints)
    latent, notes = _latent(graph, hints, num_classes)
    z = _samples(latent.shape)
    labels = (torch.arange(SAMPLES) % num_classes,) if num_classes else ()
    module, mismatch, verification = _verified(graph, (z, *labels))
    assumptions = (
        ()
        if latent.name == "image"
        else (Assumption("prior", "normal", "the file does not say; override with prior=uniform"),)
    )
    if hints.assume.get("prior") == "uniform" and latent.name != "image":
        latent = LatentSpace(latent.name, latent.shape, "uniform")
        assumptions = (Assumption("prior", "uniform", "given", sure=True),)
    return Networks(
        generator=module,
        latent=latent,
        num_classes=num_classes,
        family=graph.library,
        assumptions=assumptions,
        verification=verification,
        mismatch=mismatch,
        notes=notes,
    )


def discriminator_networks(graph: Graph, image_shape: tuple[int, int, int]) -> Networks:
    """The discriminator that ``graph`` is, for images of ``image_shape`` (C, H, W).

    Raises:
        NotOpened: it does not take such images, or gives no score for each.
    """
    reason = ""
    for shape in (image_shape, (torch.Size(image_shape).numel(),)):
        for batch in (0, *graph.baked):
            graph.module.graph_shared.traced_batch = batch
            output, reason_now = _try(graph.module, shape)
            reason = reason or reason_now
            if output is not None and not looks_like_images(output[:2]):
                module, mismatch, verification = _verified(graph, (_samples(shape).tanh(),))
                return Networks(
                    discriminator=module, image_shape=image_shape, verification=verification, mismatch=mismatch
                )
    raise NotOpened(
        f"{graph.file} is no discriminator of images {image_shape}: {reason or 'it gives no score for each image'}"
    )


def _label_count(graph: Graph, hints: Hints) -> int:
    """Number of classes: rows of the embedding that a second tensor goes to, or what was given for one-hot labels."""
    needed = [argument for argument in graph.arguments if not argument.optional]
    for argument in needed:
        if argument.kind != "Tensor":
            raise NotOpened(
                f"forward of {graph.file} needs {argument.name}: {argument.kind}, which gandissect has no value for; "
                "save a version that takes the latent alone"
            )
    if len(needed) <= 1:
        return 0
    if len(needed) == 2 and graph.num_classes:
        return graph.num_classes
    given = hints.assume.get("num_classes", "")
    if len(needed) == 2 and given.isdigit() and int(given):
        graph.module.graph_shared.one_hot = int(given)
        return int(given)
    rows = [m.get_parameter("weight").shape[0] for m in graph.module.modules() if type(m).__name__ == "Embedding"]
    if len(needed) == 2 and len(rows) == 1:
        return int(rows[0])
    names = ", ".join(argument.name for argument in needed)
    raise NotOpened(
        f"forward of {graph.file} takes {len(needed)} tensors ({names}); if the second is a one-hot label, "
        "pass --assume num_classes=10"
    )


def _latent(graph: Graph, hints: Hints, num_classes: int) -> tuple[LatentSpace, tuple[str, ...]]:
    """The input space, with the graph set up for any batch size, and what had to be done for that."""
    images_first = hints.latent is None and _starts_with_image_convolution(graph.module)
    problems: list[NotOpened] = []
    for attempt in (_take_images, _take_latents) if images_first else (_take_latents, _take_images):
        try:
            return _any_batch(graph, partial(attempt, graph, hints, num_classes))
        except OnlyDiscriminator:
            raise
        except NotOpened as error:
            problems.append(error)
    raise problems[1 if images_first else 0]


def _any_batch(graph: Graph, attempt: Callable[[], LatentSpace]) -> tuple[LatentSpace, tuple[str, ...]]:
    """What ``attempt`` finds with the graph as it is, with its recorded batch size replaced, or run in pieces of that size."""
    shared, problem = graph.module.graph_shared, None
    for batch, chunk in ((0, 0), *((n, 0) for n in graph.baked), *((0, n) for n in graph.baked)):
        shared.traced_batch, shared.chunk = batch, chunk
        try:
            latent = attempt()
        except OnlyDiscriminator:
            raise
        except NotOpened as error:
            problem = problem or error
            continue
        if batch:
            return latent, (f"recorded with a batch of {batch}; that number was replaced by the true one in shapes",)
        if chunk:
            return latent, (f"recorded with a batch of {chunk} and run {chunk} at a time; its layers cannot be read",)
        return latent, ()
    shared.traced_batch = shared.chunk = 0
    raise problem or NotOpened(f"{graph.file} does not run")


def _take_latents(graph: Graph, hints: Hints, num_classes: int) -> LatentSpace:
    given = hints.latent or (graph.shapes[0] if graph.shapes else None)
    latent = infer_latent(graph.module, given, num_classes=num_classes)
    output, reason = _try(graph.module, latent.shape, num_classes)
    if output is None or len(output) != SAMPLES or not looks_like_images(output[:2]):
        shape = "nothing" if output is None else tuple(output.shape)
        if output is not None and output[0].numel() == 1 and len(latent.shape) == 3 and latent.shape[1] > 1:
            raise OnlyDiscriminator(graph.file)
        raise NotOpened(
            f"{graph.file} makes no images from latents of shape {latent.shape}: it gives {reason or shape}"
        )
    if len(latent.shape) == 3 and latent.shape[1] > 1:
        return LatentSpace("image", latent.shape, "uniform")
    return latent


def _take_images(graph: Graph, _hints: Hints, _num_classes: int) -> LatentSpace:
    """The input of an image-to-image network; an error that says so where it is a discriminator."""
    channels = [
        weight.shape[1] for weight in graph.module.parameters() if weight.dim() == 4 and weight.shape[1] in (1, 3, 4)
    ]
    flat = [(weight.shape[1],) for weight in graph.module.parameters() if weight.dim() == 2]
    shapes: list[tuple[int, ...]] = [shape for shape in graph.shapes[:1] if len(shape) == 3 and shape[1] > 1]
    shapes += [(count, size, size) for count in channels[:1] for size in _SIZES]
    for shape in (*shapes, *flat[:1]):
        output, _ = _try(graph.module, shape)
        if output is None or len(output) != SAMPLES:
            continue
        if len(shape) == 3 and output.dim() == 4 and looks_like_images(output[:2]) and output.shape[2] * 2 > shape[1]:
            return LatentSpace("image", shape, "uniform")
        if output[0].numel() == 1 or len(shape) == 3:
            raise OnlyDiscriminator(graph.file)
    raise NotOpened(f"could not tell what {graph.file} takes as its input; pass --latent 100")


def _starts_with_image_convolution(module: nn.Module) -> bool:
    for child in module.modules():
        weight = child._parameters.get("weight")
        if weight is not None and weight.dim() in (2, 4):
            return weight.dim() == 4 and "Transpose" not in type(child).__name__ and weight.shape[1] in (1, 3, 4)
    return False


def _samples(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))


def _try(module: nn.Module, shape: tuple[int, ...], num_classes: int = 0) -> tuple[Tensor | None, str]:
    """What the module makes of a few samples of that shape, or why it does not run on them."""
    labels = (torch.arange(SAMPLES) % num_classes,) if num_classes else ()
    try:
        with torch.no_grad():
            return first_tensor(module(_samples(shape), *labels)), ""
    except Exception as error:  # a graph may fail in any way on a wrong shape
        return None, first_line(error)


def _verified(graph: Graph, args: tuple[Tensor, ...]) -> tuple[nn.Module, float | None, str]:
    """The module with torch's own layers where possible, its largest difference from the file's own output, in words."""
    batch = graph.original_batch or graph.module.graph_shared.traced_batch
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if batch and _is_random(graph.module, args):  # other sizes would draw other noise
            args = tuple(padded(value[:batch], batch) for value in args)
        reference, reason = _original_output(graph, args)
        if reference is not None:
            _interpreted(graph, args, reference)
        own = _output(graph.module, args)
        native = copy.deepcopy(graph.module)
        make_native(native, *args)
        module = native if _difference(native, args, own) <= TOLERANCE else graph.module
        if reference is None:
            return module, None, f"not verified: {graph.library} itself does not run the file here ({reason})"
        difference = _difference(module, args, reference)
    words = f"run layer by layer it equals {graph.library}'s own output on {len(args[0])} samples"
    return module, difference, f"{words} (largest difference {difference:.1e})"


def _interpreted(graph: Graph, args: tuple[Tensor, ...], reference: Tensor) -> float:
    """The difference from the file's own output; operators that write in place do so only where it is needed for that.

    Raises:
        NotOpened: the outputs differ either way.
    """
    for functional in (True, False):
        graph.module.graph_shared.functional = functional
        difference = _difference(graph.module, args, reference)
        if difference <= graph.tolerance:
            return difference
    if not bool(torch.isfinite(reference).all()):
        raise NotOpened(
            f"{graph.file} gives numbers that are NaN or infinite: its weights are damaged, or training diverged; "
            "pass a checkpoint from before that"
        )
    raise NotOpened(
        f"{graph.file} cannot be explained: run layer by layer it differs from what {graph.library} gives by {difference:.2g}; "
        "save the generator's state dict and open that with --generator"
    )


def _original_output(graph: Graph, args: tuple[Tensor, ...]) -> tuple[Tensor | None, str]:
    """What the file's own library gives for ``args``, or why it gives nothing."""
    if graph.original is None:
        return None, graph.not_run
    shared = graph.module.graph_shared
    values = list(args)
    if shared.one_hot:
        values[1] = nn.functional.one_hot(values[1], shared.one_hot).to(values[0].dtype)
    size = graph.original_batch or shared.traced_batch or shared.chunk or len(args[0])
    parts = []
    try:
        for start in range(0, len(args[0]), size):
            torch.manual_seed(0)
            parts.append(first_tensor(graph.original(*(padded(value[start : start + size], size) for value in values))))
    except Exception as error:  # a graph recorded on another device fails in its own ways
        return None, first_line(error)
    tensors = [part for part in parts if part is not None]
    return (torch.cat(tensors)[: len(args[0])], "") if tensors else (None, "it returns no tensor")


def _is_random(module: nn.Module, args: tuple[Tensor, ...]) -> bool:
    """Two runs differ when the random numbers do."""
    first = _output(module, args)
    second = first_tensor(module(*args))  # goes on where the first run left the random numbers
    return first is not None and second is not None and not torch.equal(first, second)


def _output(module: nn.Module, args: tuple[Tensor, ...]) -> Tensor | None:
    torch.manual_seed(0)
    return first_tensor(module(*args))


def _difference(module: nn.Module, args: tuple[Tensor, ...], reference: Tensor | None) -> float:
    output = _output(module, args)
    if output is None or reference is None or output.shape != reference.shape:
        return float("inf")
    return float((output - reference).abs().max())
