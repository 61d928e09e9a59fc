"""Networks built by the user's own code, with weights from a checkpoint.

    hints = Hints(generator="models.py:Generator", generator_settings={"nz": 100})
    networks = UserCodeAdapter().open(peek("netG.pth"), hints)

The code runs because the user named it; the checkpoint is still read without running anything of it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from gandissect.adapter import Adapter, Hints, Match, Networks
from gandissect.errors import NotOpened, UsageError, unknown_name
from gandissect.files.peek import Peek
from gandissect.files.reading import read_tensors
from gandissect.gan import Assumption, LatentSpace
from gandissect.importing import import_file
from gandissect.plugins import hookimpl
from gandissect.probing.latents import infer_latent
from gandissect_adapters.recognise.unwrap import StateDict, find_networks

_CLASSES = ("num_classes", "n_classes", "nclasses", "classes", "n_class")


class UserCodeAdapter(Adapter):
    """Builds what ``--generator`` names and loads the part of the checkpoint that fits it, strictly."""

    name = "user-code"

    def match(self, peek: Peek) -> Match | None:
        """Never by itself: the core chooses it when code was named."""
        return None

    def open(self, peek: Peek, hints: Hints) -> Networks:
        """The named generator, and the named discriminator where there is one.

        Raises:
            NotOpened: the code cannot be run, or no part of the checkpoint fits what it builds.
        """
        if hints.generator is None:
            raise NotOpened("which code builds the generator? pass --generator file.py:Class")
        module, note = _loaded(hints.generator, hints.generator_settings, peek, "generator")
        num_classes = _label_count(module, hints.generator_settings)
        latent = infer_latent(module, hints.latent, num_classes=num_classes)
        uniform = hints.assume.get("prior") == "uniform"
        if uniform:
            latent = LatentSpace(latent.name, latent.shape, "uniform")
        notes = [note]
        discriminator = None
        if hints.discriminator is not None:
            discriminator, note = _loaded(hints.discriminator, hints.discriminator_settings, peek, "discriminator")
            notes.append(note)
        because = "given" if uniform else "the code does not say; override with prior=uniform"
        return Networks(
            generator=module,
            discriminator=discriminator,
            latent=latent,
            num_classes=num_classes,
            family=type(module).__name__,
            assumptions=(Assumption("prior", latent.prior, because, sure=uniform),),
            verification="built by your own code; every weight fits by name and shape",
            notes=tuple(notes),
        )

    def open_discriminator(
        self, peek: Peek, hints: Hints, generator: Networks, image_shape: tuple[int, int, int]
    ) -> Networks:
        """The named discriminator with the weights of this file."""
        if hints.discriminator is None:
            raise NotOpened("which code builds the discriminator? pass --discriminator file.py:Class")
        module, note = _loaded(hints.discriminator, hints.discriminator_settings, peek, "discriminator")
        return Networks(discriminator=module, image_shape=image_shape, notes=(note,))


def _loaded(spec: str, settings: Mapping[str, object], peek: Peek, role: str) -> tuple[nn.Module, str]:
    module = build(spec, settings)
    tree = read_tensors(peek.path, peek.container)
    note = load_weights(module, find_networks(tree, peek.path.stem), peek.path.name, role)
    return module.eval(), note


def build(spec: str, settings: Mapping[str, object]) -> nn.Module:
    """What ``file.py:Class`` or ``package.module:factory`` returns when called with ``settings``.

    Raises:
        NotOpened: the file, module or name is missing, or the call fails; the message says which and why.
    """
    source, separator, name = spec.rpartition(":")
    if not separator or not source or not name:
        raise NotOpened(f"{spec!r} names no code; expected file.py:Class or package.module:factory")
    with _importable(source):
        factory = _find(_import(source), name, source)
        try:
            built = factory(**settings)
        except TypeError as error:
            raise NotOpened(f"{name}{_signature(factory)} cannot be called with {_shown(settings)}: {error}") from error
        except Exception as error:  # the user's own code may raise anything
            raise NotOpened(f"{name} of {source} raised {type(error).__name__}: {error}") from error
    if not isinstance(built, nn.Module):
        raise NotOpened(f"{name} of {source} returned {type(built).__name__}; expected a torch.nn.Module")
    return built


def _find(code: ModuleType, name: str, source: str) -> Callable[..., object]:
    found: object = code
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        known = [
            key
            for key, value in vars(code).items()
            if callable(value) and getattr(value, "__module__", "") == code.__name__
        ]
        raise NotOpened(str(unknown_name("class or function", name, known, f"in {source}")))
    return found


def _import(source: str) -> ModuleType:
    """The module of a file or a dotted name."""
    try:
        if not _is_file(source):
            return importlib.import_module(source)
        return import_file(Path(source), "file.py:Class or package.module:factory")
    except (NotOpened, UsageError):
        raise
    except ModuleNotFoundError as error:
        if error.name == source.split(".", maxsplit=1)[0]:
            raise NotOpened(
                f"no module {source!r}; pass a file as path/to/file.py:Class, or install the package"
            ) from error
        raise NotOpened(f"{source} needs the package {error.name!r}, which is not installed") from error
    except Exception as error:  # the user's own code may raise anything
        raise NotOpened(f"{source} cannot be imported: {type(error).__name__}: {error}") from error


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source or "\\" in source


@contextmanager
def _importable(source: str) -> Iterator[None]:
    """The file's folder (or the current one) at the head of ``sys.path``, so that it can import its neighbours."""
    folder = str(Path(source).expanduser().resolve().parent) if _is_file(source) else str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _signature(factory: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(factory))
    except (TypeError, ValueError):
        return "(...)"


def _shown(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in settings.items()) or "no settings (pass --set name=value)"


def load_weights(module: nn.Module, found: list[StateDict], file: str, role: str) -> str:
    """Loads the state dict that fits ``module``, and says which one it was.

    Args:
        module: gets the weights.
        found: what is in the file, averaged networks first.
        file: its name, for messages.
        role: "generator" or "discriminator": which ones are tried first where several fit.

    Raises:
        NotOpened: none fits; the message lists what is missing and what is left over of the nearest one.
    """
    if not found:
        raise NotOpened(f"{file} holds no tensors to load into {type(module).__name__}")
    wanted = module.state_dict()
    order = sorted(found, key=lambda net: (net.role not in (role, ""), net.role != role))
    best: tuple[int, str] | None = None
    for net in order:
        for tensors in _variants(net.tensors, wanted):
            problems = _problems(wanted, tensors)
            if not problems:
                module.load_state_dict({**wanted, **{key: tensors[key] for key in wanted if key in tensors}})
                averaged = ", the averaged one" if net.averaged else ""
                return f"{role} weights from {net.name or 'the outermost dict'} of {file}{averaged}"
            if best is None or len(problems) < best[0]:
                best = len(problems), _listed(problems)
    assert best is not None
    raise NotOpened(
        f"the weights in {file} do not fit {type(module).__name__}: {best[1]}; check the class and --set name=value"
    )


def _variants(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The same tensors, those under a prefix, or under the prefix that the module has and the file does not."""
    yield tensors
    first = next(iter(wanted), "")
    for prefix in dict.fromkeys(
        key[: -len(first)] for key in tensors if first and key != first and key.endswith(f".{first}")
    ):
        yield {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    stored = next(iter(tensors))
    for prefix in dict.fromkeys(key[: -len(stored)] for key in wanted if key != stored and key.endswith(f".{stored}")):
        yield {f"{prefix}{key}": value for key, value in tensors.items()}


def _problems(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    missing = [f"missing {key}" for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    extra = [f"left over {key}" for key in tensors if key not in wanted]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(wanted[key].shape)} in the class"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    return shapes + missing + extra


def _listed(problems: list[str]) -> str:
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more


def _label_count(module: nn.Module, settings: Mapping[str, object]) -> int:
    """Number of labels, where ``forward`` needs a second argument: from the settings, an attribute or an embedding."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) < 2:
        return 0
    for name in _CLASSES:
        value = settings.get(name, getattr(module, name, None))
        if isinstance(value, int) and value > 0:
            return value
    rows = [part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)]
    if rows:
        return rows[0]
    raise NotOpened(
        f"{type(module).__name__}.forward needs {', '.join(p.name for p in needed)}; wrap it in a class whose forward takes "
        "the latent (and integer labels, with num_classes as an attribute)"
    )


@hookimpl
def register_adapters() -> list[type[Adapter]]:
    """The adapter of this module."""
    return [UserCodeAdapter]
