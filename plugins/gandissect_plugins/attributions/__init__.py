"""Attributions of the discriminator's score to pixels, and of image properties to coordinates of the latent.

attribute_score(session, "integrated-gradients").maps          # float32 [N, H, W]
check_attributions(session, session.images(8)).checks          # with deletion, insertion and randomisation
attribute_latents(session, "brightness").order[0]              # the coordinate that matters most
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl
from gandissect_plugins.attributions.checks import Paired, paired, rank_correlation, shuffled_weights
from gandissect_plugins.attributions.curves import Curves, curves
from gandissect_plugins.attributions.latent import (
    LatentAttribution,
    LatentEffort,
    attribute_all_latents,
    attribute_latents,
    known_properties,
)
from gandissect_plugins.attributions.methods import METHODS, Attribution, Effort, Method, attribute, attribute_score
from gandissect_plugins.attributions.pixels import AttributionCheck, ScoreExplained, check_attributions
from gandissect_plugins.attributions.sections import Attributions
from gandissect_plugins.attributions.superpixels import superpixels
from gandissect_plugins.attributions.trained import trained_p

__all__ = [
    "METHODS",
    "Attribution",
    "AttributionCheck",
    "Attributions",
    "Curves",
    "Effort",
    "LatentAttribution",
    "LatentEffort",
    "Method",
    "Paired",
    "ScoreExplained",
    "attribute",
    "attribute_all_latents",
    "attribute_latents",
    "attribute_score",
    "check_attributions",
    "curves",
    "known_properties",
    "paired",
    "rank_correlation",
    "register_analyzers",
    "shuffled_weights",
    "superpixels",
    "trained_p",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """Attributions."""
    return [Attributions]
