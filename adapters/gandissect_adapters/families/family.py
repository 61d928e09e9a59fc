"""The contract of a family: one codebase's (or one paper's) networks, rebuilt in plain PyTorch from the names of a file.

class Mimicry(Family):
    name = "SNGAN (mimicry)"
    source = "Miyato et al. 2018; kwotsin/mimicry"
    options = {"size": Option("side of the bottom map", "4")}
    def role(self, net): return "generator" if has(net.tensors, r"l1\\.weight", r"block2\\.c1\\.weight") else ""
    def generator(self, case): ...     # a Networks with generator, latent, main_layers, assumptions
    def discriminator(self, case): ... # a Networks with discriminator

Rules that all families keep:

- A network's submodules are called as in the file, so that ``load(module, case.tensors)`` takes every tensor by its name and
  whoever reads a layer finds it under the name that the codebase's users know.
- Reparametrisations are folded before (``case.tensors`` are plain float32 weights); equalised learning rate is the family's own.
- Sizes come from shapes, facts of the file (``net.records``, ``case.file``) go before shapes, and everything else is an
  ``Option``: asked for with ``case.option``, which writes the assumption down.
- Forward is deterministic: noise is what the file stores, else zero.
- A labelled generator or discriminator is called ``module(x, labels)`` with int64 [N].
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gandissect.adapter import Networks
from gandissect.errors import NotOpened, UsageError, unknown_name
from gandissect.gan import Assumption
from gandissect_adapters.recognise.unwrap import Role, StateDict

M = TypeVar("M", bound=nn.Module)
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Option:
    """A fact that is not in the file: what it is, the value taken when nobody says otherwise, and why that one."""

    what: str
    default: str
    because: str = "the codebase's default"


@dataclass
class Case:
    """One network that is to be rebuilt, and everything that is known around it.

    ``tensors`` are the network's weights, reparametrisations folded, float32. ``file`` is the whole checkpoint's mapping (its
    ``conf``, ``args``, ``config``, ``latent_avg`` …), ``beside`` the other networks of the file. ``image_shape`` (C, H, W) is of
    what the generator makes, for discriminators.
    """

    net: StateDict
    tensors: Mapping[str, Tensor]
    options: Mapping[str, Option]
    assume: Mapping[str, str] = field(default_factory=dict)
    beside: Sequence[StateDict] = ()
    image_shape: tuple[int, int, int] | None = None
    notes: list[str] = field(default_factory=list)
    assumptions: list[Assumption] = field(default_factory=list)

    @property
    def file(self) -> Mapping[str, object]:
        """The whole checkpoint's mapping, as ``read_tensors`` gives it."""
        return self.net.file

    @property
    def config(self) -> Mapping[str, object]:
        """The settings in the file or in the ``config.json`` beside it; empty where there are none."""
        config = self.file.get("config")
        return config if isinstance(config, Mapping) else {}

    def option(self, name: str, found: object = None, because: str = "") -> str:
        """The value of an option: the user's, else what was ``found`` in the file, else the default; written down.

        Args:
            found: what the file says, None where it says nothing.
            because: where it was found.
        """
        known = self.options[name]
        if name in self.assume:
            value, why, sure = self.assume[name], "said with --assume", True
        elif found is not None:
            value, why, sure = str(found), because or "the file says so", True
        else:
            value, why, sure = known.default, known.because, False
        self.assumptions.append(Assumption(name, value, why, sure))
        return value

    def number(self, name: str, found: float | None = None, because: str = "") -> float:
        """``option`` as a number.

        Raises:
            UsageError: it is none.
        """
        return _converted(name, self.option(name, found, because), float, "a number")

    def whole(self, name: str, found: int | None = None, because: str = "") -> int:
        """``option`` as a whole number.

        Raises:
            UsageError: it is none.
        """
        return _converted(name, self.option(name, found, because), int, "a whole number")

    def choice(self, name: str, known: Sequence[str], found: str | None = None, because: str = "") -> str:
        """``option`` as one of ``known``.

        Raises:
            UnknownName: it is none of them.
        """
        value = self.option(name, found, because)
        if value not in known:
            raise unknown_name(name, value, known)
        return value

    def note(self, text: str) -> None:
        """Something that the reader of the report should know."""
        self.notes.append(text)


def _converted(name: str, value: str, kind: Callable[[str], N], what: str) -> N:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"--assume {name}={value!r} is not {what}") from None


class Family(ABC):
    """One family of networks. Stateless: one instance serves every file."""

    name: ClassVar[str]
    source: ClassVar[str]
    options: ClassVar[Mapping[str, Option]] = {}
    transposed: ClassVar[str] = ""
    """Pattern of the weights of transposed convolutions that may have spectral norm, which their shapes need not show."""

    @abstractmethod
    def role(self, net: StateDict) -> Role:
        """What ``net`` is in this family, told by names and shapes alone: generator, discriminator, or "" for not of it."""

    @abstractmethod
    def generator(self, case: Case) -> Networks:
        """The rebuilt generator: module in eval mode with its weights, latent, inner spaces, num_classes, main_layers …

        ``case.assumptions``, ``case.notes`` and the family's name are added by the caller.

        Raises:
            NotOpened: the file is of this family but cannot be rebuilt; one sentence why and what to type.
        """

    def discriminator(self, case: Case) -> Networks:
        """The rebuilt discriminator: ``discriminator``, ``discriminator_layers``, ``discriminator_classes``, its output's kind.

        Raises:
            NotOpened: as above.
        """
        raise NotOpened(f"the discriminator of {self.name} cannot be rebuilt from its state dict; pass its class")


def has(names: Mapping[str, object], *patterns: str) -> bool:
    """Whether each pattern matches a whole name."""
    return all(any(re.fullmatch(pattern, name) for name in names) for pattern in patterns)


def indices(names: Mapping[str, object], pattern: str) -> list[int]:
    """The sorted numbers that the pattern's first group takes: ``indices(t, r"blocks\\.(\\d+)\\..*")``."""
    found = (re.fullmatch(pattern, name) for name in names)
    return sorted({int(match.group(1)) for match in found if match})


def load(
    make: Callable[[], M], tensors: Mapping[str, Tensor], *, unused: Sequence[str] = (), computed: Sequence[str] = ()
) -> M:
    """The module that ``make`` builds, with the file's tensors in it, in eval mode.

    It is built without memory for its weights and takes the file's tensors as they are.

    Args:
        unused: patterns of names in the file that the module has no place for (optional parts, counters).
        computed: patterns of the module's own names that are not in the file; ``make`` sets them on the CPU.

    Raises:
        NotOpened: a name or shape does not agree; the sentence says which.
    """
    with torch.device("meta"), _Unfilled():
        shell = make()
    skip = re.compile("|".join([r".*num_batches_tracked", *unused]))
    own = re.compile("|".join(computed)) if computed else None
    wanted = shell.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not (skip.fullmatch(name) and name not in wanted)}
    missing = [
        n for n in wanted if n not in given and not n.endswith("num_batches_tracked") and not (own and own.fullmatch(n))
    ]
    extra = [name for name in given if name not in wanted]
    if missing or extra:
        what = f"has no '{missing[0]}'" if missing else f"has '{extra[0]}', which has no place in it"
        raise NotOpened(f"the network is laid out like {type(shell).__name__} but {what}")
    for name, tensor in given.items():
        if wanted[name].shape != tensor.shape:
            raise NotOpened(
                f"'{name}' has shape {tuple(tensor.shape)} in the file, where {type(shell).__name__} takes "
                f"{tuple(wanted[name].shape)}"
            )
    module = shell
    if any(tensor.is_meta for tensor in _left(shell, given)):
        module = make()  # something is computed, not loaded: it needs real memory
    module.load_state_dict(dict(given), strict=False, assign=True)
    return module.eval()


class _Unfilled(TorchFunctionMode):
    """Leaves new weights unfilled: torch's meta kernels for drawing them take seconds to import."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        name, named = getattr(func, "__name__", ""), kwargs or {}
        if name in ("randn", "rand") and not {"device", "generator"} & set(named):
            func = torch.empty
        new = args[0] if args else named.get("tensor")
        if name in ("normal_", "uniform_") and isinstance(new, Tensor):
            return new
        return func(*args, **named)


def _left(shell: nn.Module, given: Mapping[str, Tensor]) -> list[Tensor]:
    """Buffers and parameters of ``shell`` that the file does not fill, those kept out of state dicts included."""
    every = {**dict(shell.named_parameters()), **dict(shell.named_buffers())}
    return [tensor for name, tensor in every.items() if name not in given]
