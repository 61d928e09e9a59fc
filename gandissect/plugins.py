"""Plugins: what they may offer (the hooks), how they are found, and who is to blame when one breaks.

    from gandissect.plugins import hookimpl

    @hookimpl
    def register_analyzers():
        return [MeanColour]

A plugin is a module named by an entry point of the group ``gandissect``, a file given with ``--plugin``, or a built-in. Each is
called alone, so that a broken one is named and harms no other.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

from gandissect.__about__ import __version__
from gandissect.errors import strict, unknown_name
from gandissect.importing import import_file

if TYPE_CHECKING:
    import click

    from gandissect.adapter import Adapter
    from gandissect.analyzer import Analyzer
    from gandissect.blocks import Section
    from gandissect.comparer import Comparer, Kind
    from gandissect.concepts import Segmenter
    from gandissect.extractor import Extractor
    from gandissect.report import Renderer, Report
    from gandissect.session import Session

GROUP = "gandissect"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
T = TypeVar("T")
SegmenterFactory = Callable[..., "Segmenter"]

BUILTIN: Mapping[str, str] = MappingProxyType(
    {
        "state-dict": "gandissect_adapters.statedict",
        "torchscript": "gandissect_adapters.torchscript",
        "export": "gandissect_adapters.exported",
        "onnx": "gandissect_adapters.onnx",
        "pickled-module": "gandissect_adapters.pickled",
        "user-code": "gandissect_adapters.usercode",
        "overview": "gandissect_plugins.overview",
        "health": "gandissect_plugins.health",
        "discriminator": "gandissect_plugins.critic",
        "concept-sensitivity": "gandissect_plugins.concept_sensitivity",
        "dissection": "gandissect_plugins.dissection",
        "discovery": "gandissect_plugins.discovery",
        "attention": "gandissect_plugins.attention",
        "grad-cam": "gandissect_plugins.gradcam",
        "attributions": "gandissect_plugins.attributions",
        "features": "gandissect_plugins.features",
        "distribution": "gandissect_plugins.distribution",
        "directions": "gandissect_plugins.directions",
        "surrogates": "gandissect_plugins.surrogates",
        "conditions": "gandissect_plugins.conditions",
        "translation": "gandissect_plugins.translation",
        "geometry": "gandissect_plugins.geometry",
        "inversion": "gandissect_plugins.inversion",
        "comparison": "gandissect_plugins.comparison",
        "series": "gandissect_plugins.series",
        "vocabularies": "gandissect_plugins.vocabularies",
        "renderers": "gandissect_reports",
    }
)
"""Name -> module, imported when plugins are first asked for; no entry points of our own, so a checkout works as it is."""


class Hooks:
    """The hooks of gandissect. Hooks that start with ``register_`` declare and do no work."""

    @hookspec
    def register_adapters(self) -> Iterable[type[Adapter]]:  # type: ignore[empty-body]
        """Kinds of checkpoint this plugin can open."""

    @hookspec
    def register_analyzers(self) -> Iterable[type[Analyzer]]:  # type: ignore[empty-body]
        """Analyses this plugin offers."""

    @hookspec
    def register_comparers(self) -> Iterable[type[Comparer[Any]]]:  # type: ignore[empty-body]
        """Comparisons of two checkpoints, or of those of one training."""

    @hookspec
    def register_segmenters(self) -> Iterable[type[Segmenter]]:  # type: ignore[empty-body]
        """Sources of concept masks; a class with ``name`` is built without arguments or, for ``name:ARGUMENT``, with one."""

    @hookspec
    def register_extractors(self) -> Iterable[type[Extractor]]:  # type: ignore[empty-body]
        """Feature spaces, images to float32 [N, D]; built with no argument or, for ``name=ARGUMENT``, with one."""

    @hookspec
    def register_renderers(self) -> Iterable[type[Renderer]]:  # type: ignore[empty-body]
        """Ways to write a finished report."""

    @hookspec
    def register_commands(self, cli: click.Group) -> None:
        """Add subcommands to ``gandissect``."""

    @hookspec
    def section_done(self, section: Section, session: Session) -> None:
        """A section is finished (live logging)."""

    @hookspec
    def report_done(self, report: Report) -> Iterable[Section] | None:
        """The report is complete, before renderers; sections that are returned are added at its end."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that was found: its name, where it comes from, and how it went ("loaded", "disabled" or why it is broken)."""

    name: str
    source: str
    version: str
    status: str
    kinds: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        """It should be there and is not."""
        return self.status not in ("loaded", "disabled")


@dataclass(frozen=True)
class _Found:
    name: str
    source: str
    version: str
    load: Callable[[], ModuleType]
    remedy: str = ""


@dataclass
class Registry:
    """All loaded plugins, asked one at a time.

    Attributes:
        plugins: every plugin that was found, whatever became of it.
        failures: what a plugin's hook raised, by plugin name; filled as hooks are called.
    """

    plugins: list[Plugin] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    _manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP), repr=False)

    def analyzers(self) -> dict[str, type[Analyzer]]:
        """Name -> class, in the order of the report."""
        classes = cast("list[type[Analyzer]]", self._collect("register_analyzers"))
        return {cls.name: cls for cls in sorted(_unique(classes), key=lambda cls: (cls.order, cls.name))}

    def comparers(self, of: Kind) -> dict[str, type[Comparer[Any]]]:
        """Name -> class of those of one kind, in the order of the report."""
        classes = cast("list[type[Comparer[Any]]]", self._collect("register_comparers"))
        chosen = [cls for cls in classes if cls.of == of]
        return {cls.name: cls for cls in sorted(_unique(chosen), key=lambda cls: (cls.order, cls.name))}

    def adapters(self) -> list[Adapter]:
        """One instance of each adapter."""
        return [cls() for cls in cast("list[type[Adapter]]", self._collect("register_adapters"))]

    def renderers(self) -> list[Renderer]:
        """One instance of each renderer."""
        return [cls() for cls in cast("list[type[Renderer]]", self._collect("register_renderers"))]

    def segmenters(self) -> dict[str, SegmenterFactory]:
        """Name -> class, called with nothing or with the argument of ``name:ARGUMENT``."""
        found = cast("list[type[Segmenter]]", self._collect("register_segmenters"))
        return {cls.name: cls for cls in _unique(found)}

    def extractors(self) -> dict[str, type[Extractor]]:
        """Name -> class."""
        found = cast("list[type[Extractor]]", self._collect("register_extractors"))
        return {cls.name: cls for cls in _unique(found)}

    def add_commands(self, cli: click.Group) -> None:
        """Let every plugin add its commands."""
        self._each("register_commands", {"cli": cli})

    def section_done(self, section: Section, session: Session) -> None:
        """Tell every plugin."""
        self._each("section_done", {"section": section, "session": session})

    def report_done(self, report: Report) -> list[Section]:
        """Tell every plugin; the sections they add."""
        return cast("list[Section]", self._collect("report_done", {"report": report}))

    def get_analyzer(self, name: str) -> type[Analyzer]:
        """The analyzer called ``name``, or an error that names the nearest."""
        known = self.analyzers()
        if name not in known:
            raise unknown_name("analyzer", name, known, "(`gandissect plugins` lists all)")
        return known[name]

    def _collect(self, hook: str, arguments: Mapping[str, object] | None = None) -> list[object]:
        """What all plugins' lists hold, those of built-ins first."""
        return [item for answer in self._each(hook, arguments or {}) for item in answer]

    def _each(self, hook: str, arguments: Mapping[str, object]) -> Iterator[Iterable[object]]:
        """Call the hook of one plugin after another; one that raises is noted under its name and skipped."""
        answers: list[Iterable[object]] = []
        everyone = [plugin for _, plugin in self._manager.list_name_plugin() if plugin is not None]
        for name, plugin in self._manager.list_name_plugin():
            if plugin is None:
                continue
            caller = self._manager.subset_hook_caller(hook, [other for other in everyone if other is not plugin])
            try:
                answers += [list(answer) for answer in caller(**arguments) if answer is not None]
            except Exception as error:
                if strict():
                    raise
                self.failures[name] = f"{hook}: {type(error).__name__}: {error}"
        return iter(answers)

    def load(self, found: _Found) -> None:
        """Import and register one plugin, or note why not."""
        try:
            module = found.load()
            self._manager.register(module, name=found.name)
            self._check_hooks(module, found.name)
            status = "loaded"
        except Exception as error:
            if strict():
                raise
            if self._manager.has_plugin(found.name):
                self._manager.unregister(name=found.name)
            status = f"{type(error).__name__}: {error}{found.remedy}"
            module = None
        kinds = tuple(
            name.removeprefix("register_") for name in dir(Hooks) if not name.startswith("_") and hasattr(module, name)
        )
        self.plugins.append(Plugin(found.name, found.source, found.version, status, kinds))

    def _check_hooks(self, module: ModuleType, name: str) -> None:
        """A hook that we do not know is a typing error of the plugin's author."""
        known = [hook for hook in dir(Hooks) if not hook.startswith("_")]
        for attribute, value in vars(module).items():
            mark = getattr(value, f"{GROUP}_impl", None)
            if mark and attribute not in known and not mark.get("optionalhook"):
                raise unknown_name("hook", attribute, known, f"in plugin {name}")


def _unique(classes: Iterable[T]) -> list[T]:
    """The first class of each ``name``: a later plugin cannot evict an earlier one."""
    seen: dict[str, T] = {}
    for cls in classes:
        seen.setdefault(str(getattr(cls, "name", cls)), cls)
    return list(seen.values())


def load_plugins(files: Sequence[Path] = (), disable: Iterable[str] = ()) -> Registry:
    """Every built-in, installed and given plugin, each imported and registered on its own.

    Args:
        files: Python files that are plugins (``--plugin``).
        disable: names that are not loaded. ``GANDISSECT_PLUGINS=a,b`` in the environment allows only those installed
            plugins; empty allows none but the built-ins.
    """
    registry = Registry()
    registry._manager.add_hookspecs(Hooks)
    refused = set(disable)
    names: set[str] = set()
    for found in _discover(files):
        if found.name in refused:
            registry.plugins.append(Plugin(found.name, found.source, found.version, "disabled"))
        elif found.name in names:
            clash = f"name already taken; rename the entry point of {found.source}"
            registry.plugins.append(Plugin(found.name, found.source, found.version, clash))
        else:
            names.add(found.name)
            registry.load(found)
    return registry


def _discover(files: Sequence[Path]) -> Iterator[_Found]:
    for name, module in BUILTIN.items():
        yield _Found(name, "built-in", __version__, lambda module=module: importlib.import_module(module))  # type: ignore[misc]
    allowed = os.environ.get("GANDISSECT_PLUGINS")
    for entry in importlib.metadata.entry_points(group=GROUP):
        if allowed is None or entry.name in {name.strip() for name in allowed.split(",")}:
            dist = entry.dist
            source, version = (dist.name, dist.version) if dist else (entry.value, "")
            remedy = f" (from {source} {version}; pip uninstall {source}, or --disable-plugin {entry.name})"
            yield _Found(entry.name, source, version, entry.load, remedy)
    for file in files:
        yield _Found(file.stem, str(file), "", lambda file=file: import_file(file, "a plugin's .py file"))  # type: ignore[misc]
