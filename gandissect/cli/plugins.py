"""``gandissect plugins``.

gandissect plugins                       # all, and what became of them
gandissect plugins dissection            # an analyzer's options, needs and references
"""

from __future__ import annotations

import inspect as inspecting
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gandissect.analyzer import Analyzer
    from gandissect.comparer import Comparer


@click.command()
@click.argument("name", required=False)
@click.option(
    "--plugin", "plugin_files", multiple=True, type=click.Path(path_type=Path), help="A Python file that is a plugin."
)
@click.option("--disable-plugin", multiple=True, metavar="NAME", help="Do not load this plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plugins(name: str | None, plugin_files: tuple[Path, ...], disable_plugin: tuple[str, ...], as_json: bool) -> int:
    """List plugins; with NAME, the options of that analyzer or comparison."""
    from gandissect.plugins import load_plugins

    registry = load_plugins(plugin_files, disable_plugin)
    comparisons = {**registry.comparers("pair"), **registry.comparers("series")}
    if name is not None:
        own = name in comparisons and name not in registry.analyzers()
        return _show(comparisons[name] if own else registry.get_analyzer(name), as_json)
    rows: list[dict[str, Any]] = [
        {"name": p.name, "offers": list(p.kinds), "from": p.source, "version": p.version, "status": p.status}
        for p in registry.plugins
    ]
    segmenters = registry.segmenters()
    unavailable = {name: getattr(factory, "unavailable", str)() for name, factory in segmenters.items()}
    card: dict[str, Any] = {
        "plugins": rows,
        "analyzers": list(registry.analyzers()),
        "comparisons": list(comparisons),
        "adapters": [adapter.name for adapter in registry.adapters()],
        "vocabularies": list(segmenters),
        "unavailable": {name: why for name, why in unavailable.items() if why},
        "extractors": list(registry.extractors()),
        "renderers": [renderer.name for renderer in registry.renderers()],
        "failures": registry.failures,
    }
    if as_json:
        click.echo(json.dumps(card, ensure_ascii=False, indent=2))
        return 0
    for row in rows:
        offers = ", ".join(map(str, row["offers"])) or "–"
        click.echo(f"{row['name']:<16} {offers:<28} {row['from']} {row['version']}  {row['status']}")
    for kind in ("analyzers", "comparisons", "adapters", "vocabularies", "extractors", "renderers"):
        if card[kind]:
            click.echo(f"{kind}: {', '.join(card[kind])}")
    for vocabulary, why in card["unavailable"].items():
        click.echo(f"vocabulary {vocabulary} is not available: {why}")
    for plugin, reason in registry.failures.items():
        click.echo(f"plugin {plugin} failed: {reason}", err=True)
    return 0


def _show(cls: type[Analyzer] | type[Comparer[Any]], as_json: bool) -> int:
    from gandissect.analyzer import Analyzer
    from gandissect.options import describe_options

    options = describe_options(cls.Options)
    if issubclass(cls, Analyzer):
        needs = [field for field, value in vars(cls.needs).items() if value]
    else:
        needs = ["two checkpoints (gandissect compare)" if cls.of == "pair" else "a training (gandissect series)"]
    if as_json:
        described = [dict(zip(("name", "type", "default", "doc"), row, strict=True)) for row in options]
        references = [str(reference) for reference in cls.references]
        click.echo(
            json.dumps({"name": cls.name, "needs": needs, "options": described, "references": references}, indent=2)
        )
        return 0
    click.echo(f"{cls.name}: {(inspecting.getdoc(cls) or '').splitlines()[0]}")
    click.echo(f"needs: {', '.join(needs) or 'nothing but the generator'}")
    for name, kind, default, doc in options:
        click.echo(f"  {cls.name}.{name} ({kind}, default {default}): {doc}")
    for reference in cls.references:
        click.echo(f"reference: {reference}")
    return 0
