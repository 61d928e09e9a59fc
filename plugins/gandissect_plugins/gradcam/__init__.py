"""Grad-CAM of the discriminator's score and of a concept's area, with deletion and randomisation checks.

checks = explain_score(session)[0]
checks[0].cam.maps, checks[0].deletion.gain, checks[0].passed
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl
from gandissect_plugins.gradcam.cam import CamResult, grad_cam, grad_cams, without_cells
from gandissect_plugins.gradcam.check import CamCheck, Deletion, Subject, check_cams, deletion
from gandissect_plugins.gradcam.sections import ConceptCams, GradCam, explain_concepts, explain_score

__all__ = [
    "CamCheck",
    "CamResult",
    "ConceptCams",
    "Deletion",
    "GradCam",
    "Subject",
    "check_cams",
    "deletion",
    "explain_concepts",
    "explain_score",
    "grad_cam",
    "grad_cams",
    "register_analyzers",
    "without_cells",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """Grad-CAM."""
    return [GradCam]
