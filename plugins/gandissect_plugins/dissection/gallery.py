"""Units as cards: the samples that excite a unit most, with the region where it is active lit.

unit_gallery(session, result, tests, cards=48, examples=5)          # Gallery
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.blocks import Bar1, Card, Gallery, Pixels, Trust, to_uint8
from gandissect.session import Session
from gandissect.wording import p_number, p_value

from .causal import CausalTests, Role, UnitCause
from .causal.words import effect_percent
from .dissect import Dissection, LayerTable, UnitLabel

DIM = 0.25  # brightness of what is outside the active region
_WEAK_CARDS = 8  # best labels that did not pass, shown when little was found


def shown_units(result: Dissection, cards: int) -> list[UnitLabel]:
    """The units that get a card: found ones in turn by layer and concept, then a few that did not pass."""
    groups: dict[tuple[str, str], list[UnitLabel]] = {}
    for row in result.found():
        groups.setdefault((row.concept, row.layer), []).append(row)
    turn = [row for rank in range(cards) for group in groups.values() for row in group[rank : rank + 1]][:cards]
    chosen = sorted(turn, key=lambda row: (-row.strength, row.layer, row.unit))
    weak = [row for row in result.labels() if not row.found][: max(0, min(cards, _WEAK_CARDS) - len(chosen))]
    return chosen + weak


def unit_gallery(session: Session, result: Dissection, tests: CausalTests, *, cards: int, examples: int) -> Gallery:
    """A gallery of units, best first."""
    rows = shown_units(result, cards)
    samples = {row: top_samples(result.table(row.layer), row.unit, examples) for row in rows}
    needed = sorted({index for found in samples.values() for index in found})
    images = _images(session, needed)
    names = {index: session.sample_name(index) for index in needed}
    full = max([row.iou for row in rows] + [1e-6])
    made = tuple(_card(row, result, samples[row], images, tests, min(1.0, full), names) for row in rows)
    alt = f"{len(made)} units with the samples that excite them most; the region above the unit's threshold is lit."
    return Gallery(
        made, alt, caption="Samples that excite each unit most; outside its active region they are dimmed to 25 %."
    )


def top_samples(table: LayerTable, unit: int, count: int) -> list[int]:
    """The samples with the unit's largest activations, largest first."""
    return list(dict.fromkeys(table.tail.samples[unit].tolist()))[:count]


def _images(session: Session, indices: Sequence[int]) -> dict[int, Tensor]:
    """Sample index -> float32 [C, H, W]."""
    if not indices:
        return {}
    latents = session.latents_at(indices)
    images = session.generate(latents, labels=session.labels(indices))
    return dict(zip(indices, images, strict=True))


def lit_region(table: LayerTable, unit: int, sample: int, size: tuple[int, int]) -> Tensor:
    """Where a unit is above its threshold in one sample: bool [H, W], its cells enlarged bilinearly."""
    layer = table.layer
    above = (table.tail.samples[unit] == sample) & (table.tail.values[unit].double() > table.threshold[unit])
    grid = torch.zeros(layer.height * layer.width)
    grid[table.tail.cells[unit][above]] = 1.0
    maps = grid.reshape(1, 1, layer.height, layer.width)
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)[0, 0] > 0.45


def _card(
    row: UnitLabel, result: Dissection, samples: Sequence[int], images: dict[int, Tensor], tests: CausalTests, full: float,
    names: dict[int, str],
) -> Card:  # fmt: skip
    cause, role = tests.cause(row.layer, row.unit), tests.roles.get((row.layer, row.unit))
    table = result.table(row.layer)
    category = next(concept.category for concept in result.concepts if concept.name == row.concept)
    bars = [_bar(row, full)]
    sort = {"IoU": row.iou, "excess over chance": row.excess, "correlation": row.correlation}
    facets = {"layer": row.layer, "concept": row.concept, "category": category, "found by": _test(row)}
    if cause is not None and role is not None:
        bars.append(Bar1("area removed", max(0.0, cause.ablation.value), 1.0))
        sort["area removed"] = cause.ablation.value
        facets["role"] = str(role)
    return Card(
        key=f"{row.layer}/{row.unit}",
        title=f"{row.layer} · {row.unit}",
        images=_strip(table, row.unit, samples, images),
        label=row.concept,
        bars=tuple(bars),
        facts=_facts(row, result, cause, role),
        sort=sort,
        facets=facets,
        trust=_trust(row, result),
        image_labels=tuple(_image_label(table, row.unit, sample, names[sample]) for sample in samples),
    )


def _bar(row: UnitLabel, full: float) -> Bar1:
    """The number that the label rests on, with what chance or position gives as its mark."""
    if row.by == "correlation":
        return Bar1("correlation", row.correlation, 1.0, max(0.0, row.position_correlation), "position alone")
    return Bar1("IoU", row.iou, full, row.null_95, "95 % of shuffled samples")


def _test(row: UnitLabel) -> str:
    return row.by if row.found else "not found"


def _strip(table: LayerTable, unit: int, samples: Sequence[int], images: dict[int, Tensor]) -> Pixels:
    pictures = []
    for sample in samples:
        image = images[sample]
        lit = lit_region(table, unit, sample, (int(image.shape[1]), int(image.shape[2]))).numpy()
        dimmed = np.where(lit[..., None], 1.0, DIM)
        pictures.append(np.round(to_uint8(image) * dimmed).astype(np.uint8))
    return np.stack(pictures) if pictures else np.zeros((0, 1, 1, 3), np.uint8)


def _image_label(table: LayerTable, unit: int, sample: int, name: str) -> str:
    largest = table.tail.values[unit][table.tail.samples[unit] == sample][0]
    return f"{name}, activation {float(largest):.3g}"


def _trust(row: UnitLabel, result: Dissection) -> Trust:
    tested = (
        f"overlap against {result.draws} shuffles of the samples; Benjamini–Hochberg over {result.units} units and "
        f"{int(result.tested.sum())} concepts"
    )
    if row.found:
        return Trust(f"{p_value(row.p)} · FDR {100 * result.fdr:.0f} %", tested)
    return Trust("not beyond chance" if row.q > result.fdr else "overlap too small", tested, "weak")


def _facts(
    row: UnitLabel, result: Dissection, cause: UnitCause | None, role: Role | None
) -> tuple[tuple[str, str], ...]:
    facts = [
        ("threshold", f"{row.threshold:.4g} (exceeded by {100 * result.quantile:g} % of cells)"),
        ("IoU", f"{row.iou:.3f}; by chance {row.null_iou:.3f}, 95 % below {row.null_95:.3f}"),
        ("excess over chance", f"{row.excess:.3f}"),
        ("IoU within category", f"{row.iou_in_category:.3f}"),
        ("correlation", f"{row.correlation:.2f}; position alone {row.position_correlation:.2f}"),
        ("p, q", f"{p_number(row.p)}, {p_number(row.q)}"),
    ]
    if cause is not None:
        facts.append(("role", str(role)))
        facts.append(("switched off alone", f"removes {effect_percent(cause.ablation.effect)} of {row.concept} area"))
        if cause.insertion is not None:
            facts.append(
                ("switched on alone", f"adds {effect_percent(cause.insertion.effect)} of the usual {row.concept}")
            )
    return tuple(facts)
