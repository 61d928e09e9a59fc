"""Dissection as an analysis of the report.

analyze(gan, ["dissection"], options={"dissection": {"quantile": 0.005}})
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

from gandissect.analyzer import Analyzer, Needs, left_out
from gandissect.blocks import Reference, Section
from gandissect.options import option
from gandissect.reducers import BitsResult, BitsSpec
from gandissect.session import Session, Want
from gandissect.streams import Masks

from .causal import CausalTests, Plan, causal_tests
from .causal.sections import causality
from .counting.overlap import presence
from .dissect import Dissection, dissect, dissection_wants
from .gallery import unit_gallery
from .maps import matrix, unit_map
from .position import position_section
from .sections import overview, units_section

LEAST_SAMPLES = 16
"""Samples in which units are switched off, where the generator is large."""
NOTHING_FOUND = "No concept was found in any unit, so there is nothing to switch off."


@dataclass(frozen=True)
class DissectionOptions:
    """What can be set."""

    layers: tuple[str, ...] = option(
        (), "layers to dissect; the main ones where empty (12, spread over depth), every one for 'all'"
    )
    quantile: float = option(0.01, "fraction of a unit's cells that count as active (2019: 0.005, 2020: 0.01)")
    levels: str = option(
        "fixed", "level of a unit: 'fixed' by quantile, 'iqr' where it tells most, or fractions like 0.005,0.02"
    )
    resolution: Literal["cell", "bilinear"] = option("cell", "compare on the layer's grid, or upsampled to the image")
    fdr: float = option(0.05, "false-discovery rate over all units, concepts and layers")
    draws: int = option(999, "least number of shuffles of the samples")
    cards: int = option(48, "units in the gallery")
    examples: int = option(5, "samples on a unit's card")
    causal_samples: int = option(32, "samples in which units are switched off and on")
    causal_units: int = option(10, "units that are switched off and on alone; a quarter of them follow no concept")
    causal_concepts: int = option(6, "concepts whose best units are switched off and on together")
    causal_doses: int = option(1, "concepts with a dose-response curve")
    causal_maps: int = option(1, "concepts with a map of where they can be inserted")
    causal_orders: int = option(0, "concepts for which greedy, ACE, IoU and random orders of units are compared; slow")
    causal_ace_steps: int = option(100, "steps of ACE in that comparison, 0 for none")
    causal_artifacts: int = option(16, "units tested for artifacts, 0 for none")
    set_size: int = option(8, "units that are switched off together, a quarter of the layer at most")


class DissectionAnalyzer(Analyzer):
    """Units against concepts with their chance level, and the measured effect of switching units off.

    References:
        Bau et al. 2019, GAN Dissection; Bau et al. 2020, Understanding the role of individual units in a deep neural network;
        Benjamini & Hochberg 1995, Controlling the False Discovery Rate.
    """

    name: ClassVar[str] = "dissection"
    order: ClassVar[int] = 200
    needs: ClassVar[Needs] = Needs(layers=True, concepts=True)
    Options: ClassVar[type] = DissectionOptions
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Bau, Zhu, Strobelt, Zhou, Tenenbaum, Freeman, Torralba", 2019,
                  "GAN Dissection: Visualizing and Understanding Generative Adversarial Networks", "ICLR"),
        Reference("Bau, Zhu, Strobelt, Lapedriza, Zhou, Torralba", 2020,
                  "Understanding the role of individual units in a deep neural network", "PNAS 117(48)"),
        Reference("Benjamini, Hochberg", 1995,
                  "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing", "JRSS B 57(1)"),
        Reference("Hemerik, Goeman", 2018, "Exact testing with random permutations", "TEST 27(4)"),
        Reference("Odena, Dumoulin, Olah", 2016, "Deconvolution and Checkerboard Artifacts", "Distill"),
    )  # fmt: skip

    @property
    def _set(self) -> DissectionOptions:
        return cast(DissectionOptions, self.options)

    def wants(self, session: Session) -> Iterable[Want]:
        chosen = self._set
        concepts = session.vocabulary.concepts if chosen.levels == "iqr" else ()
        return dissection_wants(
            session.gan, session.n, chosen.layers, chosen.quantile, levels=chosen.levels,
            resolution=chosen.resolution, concepts=concepts,
        )  # fmt: skip

    def run(self, session: Session) -> Iterator[Section]:
        chosen = self._set
        result = dissect(
            session,
            chosen.layers,
            quantile=chosen.quantile,
            fdr=chosen.fdr,
            draws=chosen.draws,
            levels=chosen.levels,
            resolution=chosen.resolution,
        )
        session.remember(result)
        tests, why_not = self._causal(session, result)
        note = ""
        if not chosen.layers:
            main = len(session.gan.generator.main_layers())
            note = left_out(len(result.layers), main, "`--set dissection.layers=NAME,NAME` takes others")
        yield overview(result, tests, note)
        gallery = unit_gallery(session, result, tests, cards=chosen.cards, examples=chosen.examples)
        if gallery.cards:
            yield units_section(result, gallery)
        maps = (matrix(result), unit_map(result, session.seed), position_section(result))
        yield from (section for section in maps if section is not None)
        if why_not:
            yield Section("What units cause", summary=why_not, status="done" if why_not == NOTHING_FOUND else "skipped")
        else:
            yield causality(tests)

    def _causal(self, session: Session, result: Dissection) -> tuple[CausalTests, str]:
        """The ablations, or why there are none."""
        if not session.vocabulary.reads_pixels:
            return (
                CausalTests(),
                "Masks of given samples say nothing about edited ones; add a segmenter that reads pixels.",
            )
        if not any(table.layer.editable for table in result.layers):
            return CausalTests(), "The layers of this format cannot be edited."
        masks = cast(BitsResult, session[Want((Masks(),), BitsSpec(), result.n)])
        tests = causal_tests(session, result, self._plan(session), presence(masks))
        return tests, "" if tests.concepts else NOTHING_FOUND

    def _plan(self, session: Session) -> Plan:
        """What was asked for, in fewer samples where the generator is large."""
        chosen = self._set
        plan = Plan(
            chosen.causal_samples, chosen.causal_units, chosen.causal_concepts, chosen.set_size, doses=chosen.causal_doses,
            maps=chosen.causal_maps, orders=chosen.causal_orders, ace_steps=chosen.causal_ace_steps,
            artifacts=chosen.causal_artifacts,
        )  # fmt: skip
        share = session.affordable(plan.images) / max(plan.images, 1)
        fewer = min(plan.samples, max(LEAST_SAMPLES, int(plan.samples * share)))
        return replace(plan, samples=fewer)
