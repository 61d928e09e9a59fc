"""The contract between the core and whoever can open a kind of checkpoint.

class Onnx(Adapter):
    name = "onnx"
    def match(self, peek: Peek) -> Match | None:
        return Match(0.9, "an ONNX graph") if peek.container == "onnx" else None
    def open(self, peek: Peek, hints: Hints) -> Networks:
        return Networks(generator=..., latent=LatentSpace("z", (100,)))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from gandissect.gan import Assumption, InnerSpace, LatentSpace

if TYPE_CHECKING:
    from gandissect.files.peek import Peek


@dataclass(frozen=True)
class Match:
    """How well an adapter fits a file: 0 (not at all) to 1 (certainly), and why in a few words.

    ``runs_code``: opening it this way runs code of the file. Such an adapter goes first where the user trusts the file, and
    last where not.
    """

    score: float
    why: str
    runs_code: bool = False


@dataclass(frozen=True)
class Hints:
    """What the user said beside the path.

    ``generator``/``discriminator`` are ``file.py:Class`` or ``package.module:factory``; a discriminator may also be the path of
    a checkpoint (``discriminator_path``). ``settings`` go to the class or factory as keyword arguments. ``assume`` overrides
    what recognition would search (``activation=lrelu0.2``, ``prior=uniform``, ``output=sigmoid``). ``trust`` allows
    running code that comes out of a file.
    """

    trust: bool = False
    adapter: str | None = None
    generator: str | None = None
    generator_settings: Mapping[str, object] = field(default_factory=dict)
    discriminator: str | None = None
    discriminator_settings: Mapping[str, object] = field(default_factory=dict)
    discriminator_path: Path | None = None
    latent: tuple[int, ...] | None = None
    assume: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Networks:
    """What an adapter found in a file, before the core probes it.

    Every readable layer must be a submodule whose forward hook fires and whose output a hook may replace; an adapter of a
    format where that is not so (TorchScript, torch.export) returns a module that it interprets the format with.
    ``None`` for a latent, an output range or a discriminator's output means: find it by running. ``main_layers`` and
    ``discriminator_layers`` name submodules, composite ones too, whose outputs (one tensor each) are what analyzers should look
    at; where empty, the last layer of each stage is taken. ``generators`` names those of a file with several, this one first.
    ``encoder`` turns images in the generator's own output range into latents; it is tried on samples before it is believed.
    """

    generator: nn.Module | None = None
    discriminator: nn.Module | None = None
    latent: LatentSpace | None = None
    image_shape: tuple[int, int, int] | None = None
    output_range: tuple[float, float] | None = None
    num_classes: int = 0
    inner: tuple[InnerSpace, ...] = ()
    main_layers: tuple[str, ...] = ()
    discriminator_layers: tuple[str, ...] = ()
    discriminator_classes: int = 0
    discriminator_output: Literal["logit", "probability"] | None = None
    encoder: nn.Module | None = None
    family: str = ""
    generators: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    verification: str = ""
    mismatch: float | None = None
    notes: tuple[str, ...] = ()


def joined(networks: Networks, found: Networks) -> Networks:
    """``networks`` with the discriminator of ``found``, and what was assumed and noted of it."""
    return replace(
        networks,
        discriminator=found.discriminator,
        discriminator_output=found.discriminator_output,
        discriminator_layers=found.discriminator_layers,
        discriminator_classes=found.discriminator_classes,
        assumptions=tuple(dict.fromkeys((*networks.assumptions, *found.assumptions))),
        notes=tuple(dict.fromkeys((*networks.notes, *found.notes))),
    )


class Adapter(ABC):
    """Opens one container or family of checkpoints. Stateless: one instance serves every file."""

    name: ClassVar[str]

    @abstractmethod
    def match(self, peek: Peek) -> Match | None:
        """How well this adapter fits, from the peek alone; None when not at all. Runs nothing out of the file."""

    @abstractmethod
    def open(self, peek: Peek, hints: Hints) -> Networks:
        """The networks in the file.

        Raises:
            NotOpened: one sentence that says what is missing and what to type.
            UnsafeCheckpoint: code of the file would have to run and ``hints.trust`` is False.
        """

    def open_discriminator(
        self, peek: Peek, hints: Hints, generator: Networks, image_shape: tuple[int, int, int]
    ) -> Networks:
        """The discriminator in a file of its own (``--discriminator FILE``), for images of ``image_shape`` (C, H, W).

        The result's ``discriminator`` is set. Override it where the generator helps to tell what the file does not say.
        """
        return self.open(peek, hints)
