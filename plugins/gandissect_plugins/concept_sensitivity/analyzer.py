"""Concept sensitivity of the discriminator as a section of a report.

list(ConceptSensitivity({"concepts": 3}).run(session))[0].summary
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from gandissect.analyzer import Analyzer, Needs, left_out, spread
from gandissect.blocks import Section
from gandissect.concepts import telling_first
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Masks, Session, Want
from gandissect.trust import adjusted
from gandissect_plugins.attributions.trained import trained_p
from gandissect_plugins.concept_sensitivity.evidence import SensedLayer, moved_logits, slopes
from gandissect_plugins.concept_sensitivity.sections import REFERENCES, Sensed, sensitivity_section
from gandissect_plugins.concept_sensitivity.transplants import Transplant, transplant
from gandissect_plugins.concept_sensitivity.vectors import Places, Sensitivity, Space, random_answers, sensitivity

TITLE = "Which concepts move the discriminator"
SMALLEST, FEWEST = 6, 4
"""Samples on each side of a CAV, and CAVs of a concept, below which nothing is said."""
DIFFERENCE = 0.02
MOVED = 16
"""Samples that are moved along CAVs, and along so many random ones for each layer."""
RANDOM = 6


@dataclass(frozen=True)
class ConceptSensitivityOptions:
    """Options of the discriminator's concept sensitivity."""

    samples: int = option(480, "samples that concept activation vectors are fitted to and tested on")
    slopes: int = option(64, "samples, not among those fitted on, at which the logit's slope is taken")
    concepts: int = option(8, "concepts at most, the most telling")
    layers: int = option(3, "layers of the discriminator, spread over depth")
    cavs: int = option(10, "vectors for each concept, from sets that share no sample")
    random: int = option(3, "rounds of vectors between random sets")


class ConceptSensitivity(Analyzer):
    """TCAV scores of the discriminator's logit, beside random sets, and what pasting a concept into other samples does."""

    name = "concept-sensitivity"
    order = 280
    needs = Needs(discriminator=True, discriminator_gradients=True, concepts=True)
    references = REFERENCES
    Options: ClassVar[type] = ConceptSensitivityOptions
    options: ConceptSensitivityOptions

    def wants(self, session: Session) -> Iterable[Want]:
        n, seen = self._sizes(session)
        yield Want((Images(),), KeepSpec(), seen)
        yield Want((Masks(),), KeepSpec("bool"), seen)
        yield Want((Areas(),), KeepSpec(), n)
        for layer in self._layers(session):
            yield layer.want(n)

    def run(self, session: Session) -> Iterator[Section]:
        n, seen = self._sizes(session)
        third = (n - seen) // 3
        cavs = min(self.options.cavs, third // SMALLEST)
        if cavs < FEWEST:
            least = 4 * FEWEST * SMALLEST  # a quarter of the samples is for slopes
            why = f"needs at least {least} samples for vectors that share none (--samples N), here {session.n}"
            yield Section(TITLE, summary=why, status="skipped", references=REFERENCES)
            return
        chosen = self._concepts(session, n, seen, third)
        if not chosen:
            why = "no concept's area differs enough between samples; pass others with --concepts NAME"
            yield Section(TITLE, summary=why, status="skipped", references=REFERENCES)
            return
        sensed = self._sensed(session, n, seen, cavs, chosen)
        trained = self._trained(session) if any(one.confirmed for one in sensed) else 1.0
        layers = self._layers(session)
        assert session.gan.discriminator is not None
        main = len(session.gan.discriminator.main_layers())
        note = left_out(len(layers), main, "`--set concept-sensitivity.layers=N` takes more")
        yield sensitivity_section(sensed, trained, n, [note] if note else [])

    def _sizes(self, session: Session) -> tuple[int, int]:
        """(samples in all, the first so many of them at which slopes are taken)."""
        n = min(session.n, self.options.samples)
        return n, min(self.options.slopes, n // 4)

    def _layers(self, session: Session) -> list[SensedLayer]:
        assert session.gan.discriminator is not None
        main = session.gan.discriminator.main_layers()
        inner = [layer for layer in main if layer.channels * layer.height * layer.width > 1]
        return [SensedLayer.of(layer) for layer in spread(inner, self.options.layers)]

    def _concepts(self, session: Session, n: int, seen: int, third: int) -> dict[str, tuple[int, Places, Places]]:
        """Name -> (number, samples with most of it, with least of it), counted without the first ``seen`` samples."""
        areas = session.areas(n)[seen:].double().numpy()
        known = session.vocabulary.concepts
        found: dict[str, tuple[int, Places, Places]] = {}
        for k in telling_first(known, session.areas(n)[seen:]):
            order = np.argsort(-areas[:, k], kind="stable")
            much, little = order[:third], order[::-1][:third]
            apart = areas[much, k].mean() - areas[little, k].mean() >= DIFFERENCE
            if apart and areas[much, k].min() > areas[little, k].max():
                found[known[k].name] = (k, much, little)
            if len(found) == self.options.concepts:
                break
        return found

    def _sensed(
        self, session: Session, n: int, seen: int, cavs: int, chosen: dict[str, tuple[int, Places, Places]]
    ) -> list[Sensed]:
        layers = self._layers(session)
        slope = slopes(session, layers, seen)
        spaces = []
        for layer in layers:
            held = cast(Tensor, session[layer.want(n)])[seen:].flatten(1).double()
            spaces.append(Space(held.numpy(), slope[layer.name].numpy()))
        size = (n - seen) // 3 // cavs
        tests: dict[str, list[Sensitivity]] = {name: [] for name in chosen}
        for layer, space in zip(layers, spaces, strict=True):
            rng = session.rng(f"concept-sensitivity: {layer.name}")
            random = random_answers(space, size, self.options.random, rng)
            for name, (_, much, little) in chosen.items():
                tests[name].append(sensitivity(space, much, little, cavs=cavs, random=random, rng=rng))
        q = adjusted(np.array([[test.p for test in row] for row in tests.values()]))
        moved = self._moved(session, layers, spaces, tests, seen)
        pasted = self._pasted(session, chosen, seen)
        names = tuple(layer.name for layer in layers)
        return [
            Sensed(name, names, tuple(tests[name]), tuple(q[row].tolist()), tuple(moved[name]), pasted[name])
            for row, name in enumerate(chosen)
        ]

    def _moved(
        self,
        session: Session,
        layers: list[SensedLayer],
        spaces: list[Space],
        tests: dict[str, list[Sensitivity]],
        seen: int,
    ) -> dict[str, list[tuple[float, float, float]]]:
        """What one standard deviation along each CAV did: name -> (measured, by the gradient, random CAVs) for each layer."""
        count = min(seen, MOVED)
        before = session.scores(seen)[:count].double()
        made: dict[str, list[tuple[float, float, float]]] = {name: [] for name in tests}
        for k, (layer, space) in enumerate(zip(layers, spaces, strict=True)):
            rng = session.rng(f"concept-sensitivity: moved {layer.name}")

            def change(step: np.ndarray[tuple[int, ...], np.dtype[np.float64]], layer: SensedLayer = layer) -> float:
                return float((moved_logits(session, layer, torch.from_numpy(step), count) - before).mean())

            chance = []
            for _ in range(RANDOM):
                way = rng.standard_normal(len(space.centred)) @ space.centred
                way /= max(float(np.linalg.norm(way)), 1e-300)
                chance.append(abs(change(way * float((space.centred @ way).std()))))
            high = max(chance)
            for name, row in tests.items():
                step = row[k].direction * row[k].size
                made[name].append((change(step), float((space.slopes[:count] @ step).mean()), high))
        return made

    def _pasted(
        self, session: Session, chosen: dict[str, tuple[int, Places, Places]], seen: int
    ) -> dict[str, Transplant | None]:
        images, masks = session.images(seen), session.masks(seen)
        return {
            name: transplant(session, images, masks[:, k], session.rng(f"concept-sensitivity: pasted {name}"))
            for name, (k, _, _) in chosen.items()
        }

    def _trained(self, session: Session) -> float:
        assert session.gan.discriminator is not None
        labels = session.labels(range(8), "discriminator")
        rng = session.rng("concept-sensitivity: trained")
        return trained_p(session.gan.discriminator, session.images(8), 49, rng, labels=labels)
