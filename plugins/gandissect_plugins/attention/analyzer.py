"""Attention layers as sections of a report.

list(Attention({"samples": 16}).run(session))[0].summary
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import nan
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gandissect.analyzer import Analyzer, left_out, spread
from gandissect.blocks import Section
from gandissect.borrow import borrowed
from gandissect.errors import UsageError
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import BLOCK, Images, Masks, Session, Want
from gandissect.streams import Role
from gandissect_plugins.attention.content import (
    cross_table,
    follows,
    heads,
    locality,
    same_colour,
    same_concept,
    within,
)
from gandissect_plugins.attention.effects import effects
from gandissect_plugins.attention.maps import AttentionLayer, Subject, attention_layers
from gandissect_plugins.attention.sections import FOLLOWS, LEAST, REFERENCES, Told, attention_section
from gandissect_plugins.attention.trace import Mixing, attending
from gandissect_plugins.attributions.checks import beyond, shuffled_weights

NONE = (
    "no attention over places was seen in {what}: no softmax of a product mixes values of a grid of places "
    "(compiled code and softmaxes written out by hand are not read){why}; --skip attention leaves this out"
)

RUNS = 7
"""Times a generator runs for each of its attention layers."""
LEAST_SAMPLES = 16


@dataclass(frozen=True)
class AttentionOptions:
    """Options of the attention maps."""

    samples: int = option(32, "samples whose attention is measured")
    shown: int = option(4, "samples that are shown")
    queries: tuple[str, ...] = option(
        ("0.3:0.3", "0.3:0.7", "0.6:0.5", "0.9:0.2"),
        "places that are shown, row:column in 0..1 from the upper left corner",
    )
    layers: int = option(6, "attention layers of each network at most, spread over depth")
    copies: int = option(19, "copies with shuffled weights that a layer's following of content is compared with")


class Attention(Analyzer):
    """Self-attention maps of both networks, whether they follow content, and what removing them changes."""

    name = "attention"
    order = 290
    references = REFERENCES
    Options: ClassVar[type] = AttentionOptions
    options: AttentionOptions

    def wants(self, session: Session) -> Iterable[Want]:
        yield Want((Images(),), KeepSpec(), min(session.n, self.options.samples))

    def run(self, session: Session) -> Iterator[Section]:
        points = [_point(text) for text in self.options.queries]
        count = self._count(session)
        roles: tuple[Role, ...] = ("generator", "discriminator") if session.gan.discriminator else ("generator",)
        reasons = []
        found = False
        for role in roles:
            subject = Subject.of(session, role, count)
            layers, refused = attention_layers(subject, points)
            reasons += [f"{name}: {why}" for name, why in refused.items()]
            if layers:
                found = True
                yield self._section(subject, role, layers, reasons[-len(refused) :] if refused else [])
        if not found:
            why = f"; {'; '.join(reasons)}" if reasons else ""
            words = NONE.format(what=" or ".join(f"the {role}" for role in roles), why=why)
            yield Section("Attention", summary=words, status="skipped", references=REFERENCES)

    def _count(self, session: Session) -> int:
        """As many samples as were asked for, fewer where the generator is large."""
        asked = min(session.n, self.options.samples)
        passes = RUNS * self.options.layers
        return min(asked, max(LEAST_SAMPLES, session.affordable(asked * passes) // passes))

    def _most(self, session: Session, count: int) -> int:
        """As many layers as were asked for, fewer where the generator is large even for few samples."""
        each = RUNS * max(count, LEAST_SAMPLES)
        return max(1, min(self.options.layers, session.affordable(each * self.options.layers) // each))

    def _section(self, subject: Subject, role: Role, layers: list[AttentionLayer], reasons: list[str]) -> Section:
        session = subject.session
        chosen = spread(layers, self._most(session, len(subject.images)))
        notes = [note.replace("main layers", "attention layers") for note in [
            left_out(len(chosen), len(layers), "a large generator and `--set attention.layers=N` limit them")] if note]  # fmt: skip
        notes += [f"Left out: {', '.join(reasons)}."] if reasons else []
        told = [self._told(subject, layer) for layer in chosen]
        shown = [session.sample_name(place) for place in range(min(self.options.shown, len(subject.images)))]
        return attention_section(role, subject.images, told, notes, shown)

    def _told(self, subject: Subject, layer: AttentionLayer) -> Told:
        session = subject.session
        rng = session.rng(f"attention: {subject.network.role} {layer.name}")
        regions = _regions(session, layer, subject.images)
        rows = layer.rows[:, layer.shown :]
        following = {name: follows(rows, region, rng) for name, region in regions.items()}
        done = effects(subject, layer, rng)
        best = max(following.items(), key=lambda item: item[1].excess)
        trained = nan
        if layer.reproduced and best[1].p <= FOLLOWS and done.branch >= LEAST:
            trained = self._trained(subject, layer, regions[best[0]], rng)
        return Told(layer, heads(layer), locality(layer), following, done, trained)

    def _trained(self, subject: Subject, layer: AttentionLayer, region: Tensor, rng: np.random.Generator) -> float:
        """p that the layer with its weights in random places follows content as much; NaN where it cannot be run on its own."""
        module = subject.network.module.get_submodule(layer.name.partition("@")[0])
        given = _entering(subject, module)
        if not any(True for _ in module.parameters()) or given is None or "@" in layer.name:
            return nan
        few, null = min(BLOCK, len(layer.maps)), []
        for _ in range(self.options.copies):
            with borrowed(module), torch.no_grad(), shuffled_weights(module, rng, lambda: given.few(module)):
                rows = _rows(module, given, layer)
            if rows is None:
                return nan
            null.append(_excess(rows, region[:few]))
        return beyond(_excess(layer.rows[:few, layer.shown :], region[:few]), null)


def _regions(session: Session, layer: AttentionLayer, images: Tensor) -> dict[str, Tensor]:
    """What a query can belong to, by name: float32 [N, P, K] each."""
    regions = {"colour": same_colour(layer, images)}
    concepts = session.vocabulary.concepts
    if concepts:
        things = same_concept(layer, session[Want((Masks(),), KeepSpec("bool"), len(images))], concepts)  # type: ignore[arg-type]  # kept masks
        regions |= {} if things is None else {"thing": things}
    return regions


@dataclass(frozen=True)
class _Call:
    """What goes into a module for one block of samples."""

    args: tuple[object, ...]
    named: dict[str, object]

    def run(self, module: torch.nn.Module) -> None:
        module(*self.args, **self.named)

    def few(self, module: torch.nn.Module) -> None:
        """As ``run``, for two samples where it is known which they are."""
        if len(self.args) == 1 and not self.named and isinstance(self.args[0], Tensor):
            module(self.args[0][:2])
        else:
            self.run(module)


def _entering(subject: Subject, module: torch.nn.Module) -> _Call | None:
    """What goes into ``module`` for the first block of samples; None where that is not one call with tensors."""
    calls: list[_Call] = []

    def keep(_module: object, args: tuple[object, ...], named: dict[str, object]) -> None:
        calls.append(_Call(args, named))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        subject.first().run()
    finally:
        handle.remove()
    given = [value for call in calls for value in (*call.args, *call.named.values())]
    return calls[0] if len(calls) == 1 and any(isinstance(value, Tensor) for value in given) else None


def _excess(rows: Tensor, region: Tensor) -> float:
    """How much more attention stays within a sample's own region than within another sample's; NaN for less than two samples."""
    table = cross_table(rows, region)
    return float(np.subtract(*within(table))) if len(table) > 1 else nan


def _rows(module: torch.nn.Module, call: _Call, layer: AttentionLayer) -> Tensor | None:
    """Rows of the even queries of the first block's samples while the module runs on its own: float32 [N, P, K]; None where it attends
    no more by itself."""
    rows: list[Tensor] = []

    def look(mixing: Mixing) -> None:
        if not mixing.name:  # the module itself, its first attention
            rows.append(layer.places.rows(mixing.weights)[0][:, :, layer.shown :].mean(1).cpu())

    with attending(module, look, batch=BLOCK):
        call.run(module)
    return rows[0][: len(layer.maps)] if len(rows) == 1 else None


def _point(text: str) -> tuple[float, float]:
    try:
        row, column = (float(part) for part in text.split(":"))
    except ValueError:
        row = column = -1.0
    if not (0 <= row <= 1 and 0 <= column <= 1):
        raise UsageError(f"attention.queries: {text!r} is no place; expected row:column, each 0 to 1, such as 0.5:0.25")
    return row, column
