"""Discovery as an analysis of the report.

analyze(gan, ["discovery"], options={"discovery": {"clusters": 12}})
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Reference, Section
from gandissect.options import option
from gandissect.session import Session, Want

from .cells import LEAST_CELLS, LEAST_UNITS, evidence_wants, looked_at
from .discover import LEAST_SAMPLES, discover
from .sections import clusters_section, concepts_section, units_section
from .units import units_of


@dataclass(frozen=True)
class DiscoveryOptions:
    """What can be set."""

    layers: tuple[str, ...] = option(
        (), "layers to cluster; up to four main ones with a map, spread over depth, where empty"
    )
    samples: int = option(200, "samples that are clustered")
    clusters: int = option(8, "largest number of clusters tried")
    concepts: int = option(6, "discovered concepts, at most")
    unit_samples: int = option(300, "samples in which units are compared with the concepts")


class DiscoveryAnalyzer(Analyzer):
    """Concepts without a segmenter: clusters of activations that come back and that pixels agree with, and their units.

    References:
        Collins et al. 2020, Editing in Style; Lange et al. 2004, Stability-Based Validation of Clustering Solutions; Hennig
        2007, Cluster-wise assessment of cluster stability.
    """

    name: ClassVar[str] = "discovery"
    order: ClassVar[int] = 250
    needs: ClassVar[Needs] = Needs(layers=True)
    Options: ClassVar[type] = DiscoveryOptions
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Collins, Bala, Price, Süsstrunk", 2020, "Editing in Style: Uncovering the Local Semantics of GANs", "CVPR"),
        Reference("Hornik, Feinerer, Kober, Buchta", 2012, "Spherical k-Means Clustering", "Journal of Statistical Software 50(10)"),
        Reference("Lange, Roth, Braun, Buhmann", 2004, "Stability-Based Validation of Clustering Solutions", "Neural Computation 16(6)"),
        Reference("Hennig", 2007, "Cluster-wise assessment of cluster stability", "Computational Statistics & Data Analysis 52(1)"),
        Reference("Vinh, Epps, Bailey", 2010, "Information Theoretic Measures for Clusterings Comparison", "JMLR 11"),
    )  # fmt: skip

    @property
    def _set(self) -> DiscoveryOptions:
        return cast(DiscoveryOptions, self.options)

    def wants(self, session: Session) -> Iterable[Want]:
        return evidence_wants(session.gan, session.n, self._set.layers, self._set.samples)

    def run(self, session: Session) -> Iterator[Section]:
        chosen = self._set
        found = discover(session, chosen.layers, samples=chosen.samples, most=chosen.clusters, concepts=chosen.concepts)
        if found is None:
            why = f"needs {LEAST_SAMPLES} samples (pass -n {LEAST_SAMPLES} or more)"
            if not looked_at(session.gan, chosen.layers):
                why = (
                    f"the generator has no layer of {LEAST_UNITS} units that are maps of {LEAST_CELLS} cells or more; "
                    "--skip discovery leaves this out"
                )
            yield Section("Concepts without a segmenter", summary=why, status="skipped")
            return
        session.remember(found)
        units = units_of(session, found, n=chosen.unit_samples) if found.concepts else None
        yield concepts_section(session, found, units)
        yield clusters_section(found)
        if units is not None:
            yield units_section(found, units)
