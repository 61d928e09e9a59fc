"""Dissection as an analysis of the report.

analyze(gan, ["dissection"], options={"dissection": {"quantile": 0.005}})
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from gandissect.analyzer import Analyzer, Needs, left_out
from gandissect.blocks import Reference, Section
from gandissect.options import option
from gandissect.paired import BitsResult, BitsSpec
from gandissect.session import Session, Want
from gandissect.streams import Masks

from .dissect import Dissection, dissect, dissection_wants
from .effects import RANDOM_SETS, CausalTests, Plan, causal_tests
from .gallery import unit_gallery
from .overlap import presence
from .sections import causality, matrix, overview, units_section

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
    resolution: Literal["cell", "image"] = option("cell", "compare on the layer's grid, or upsampled in a second pass")
    fdr: float = option(0.05, "false-discovery rate over all units, concepts and layers")
    draws: int = option(999, "least number of shuffles of the samples")
    cards: int = option(48, "units in the gallery")
    examples: int = option(5, "samples on a unit's card")
    causal_samples: int = option(40, "samples in which units are switched off")
    causal_units: int = option(10, "units that are switched off alone")
    causal_concepts: int = option(6, "concepts whose best units are switched off together")
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
    )  # fmt: skip

    @property
    def _set(self) -> DissectionOptions:
        return cast(DissectionOptions, self.options)

    def wants(self, session: Session) -> Iterable[Want]:
        return dissection_wants(session.gan, session.n, self._set.layers, self._set.quantile)

    def run(self, session: Session) -> Iterator[Section]:
        chosen = self._set
        result = dissect(
            session,
            chosen.layers,
            quantile=chosen.quantile,
            fdr=chosen.fdr,
            draws=chosen.draws,
            resolution=chosen.resolution,
        )
        tests, why_not = self._causal(session, result)
        note = ""
        if not chosen.layers:
            main = len(session.gan.generator.main_layers())
            note = left_out(len(result.layers), main, "--set dissection.layers=NAME,NAME takes others")
        yield overview(result, tests, note)
        gallery = unit_gallery(session, result, tests, cards=chosen.cards, examples=chosen.examples)
        if gallery.cards:
            yield units_section(result, gallery)
        heat = matrix(result)
        if heat is not None:
            yield heat
        if why_not:
            yield Section("What units cause", summary=why_not, status="done" if why_not == NOTHING_FOUND else "skipped")
        else:
            yield causality(result, tests)

    def _causal(self, session: Session, result: Dissection) -> tuple[CausalTests, str]:
        """The ablations, or why there are none."""
        none = CausalTests((), (), {})
        if not session.vocabulary.reads_pixels:
            return none, "Masks of given samples say nothing about edited ones; add a segmenter that reads pixels."
        if not any(table.layer.editable for table in result.layers):
            return none, "The layers of this format cannot be edited."
        chosen = self._set
        masks = cast(BitsResult, session[Want((Masks(),), BitsSpec(), result.n)])
        runs = chosen.causal_units + chosen.causal_concepts * (1 + RANDOM_SETS)
        each = session.affordable(runs * chosen.causal_samples) // max(runs, 1)  # fewer for a large generator
        samples = min(chosen.causal_samples, max(LEAST_SAMPLES, each))
        plan = Plan(samples, chosen.causal_units, chosen.causal_concepts, chosen.set_size)
        tests = causal_tests(session, result, plan, presence(masks))
        return tests, "" if tests.concepts else NOTHING_FOUND
