"""Numbers that compare two sets of samples; pure functions of arrays, no model inside.

    frechet_distance(real_features, generated_features)             # float, 0 for equal means and covariances
    kid(real_features, generated_features).mean                     # unbiased: may be negative
    precision_recall(real_features, generated_features)             # what is plausible, what is covered
    ssim(images, others, convention="gaussian")                     # float64 [N]

Each function says its formula, paper, shapes and ranges; ``docs/metrics.md`` says when which number misleads.
"""

from gandissect.metrics.frechet import (
    Extrapolation,
    Moments,
    frechet_at_infinity,
    frechet_between,
    frechet_deviation,
    frechet_distance,
    frechet_influences,
    moments,
)
from gandissect.metrics.histograms import js_divergence, kl_divergence, wasserstein1
from gandissect.metrics.kernel import Kid, kid, mmd, polynomial_kernel, polynomial_mmd
from gandissect.metrics.neighbours import (
    Balls,
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    distances,
    precision_recall,
)
from gandissect.metrics.paths import PathLength, perceptual_path_length, slerp
from gandissect.metrics.representation import cka, feature_rows
from gandissect.metrics.resampling import around, bootstrap_weights, halves, middle, permutation_p
from gandissect.metrics.scores import InceptionScore, inception_score
from gandissect.metrics.similarity import ms_ssim, ms_ssim_scales, ssim

__all__ = [
    "Balls",
    "DensityCoverage",
    "Extrapolation",
    "InceptionScore",
    "Kid",
    "Moments",
    "PathLength",
    "PrecisionRecall",
    "around",
    "bootstrap_weights",
    "cka",
    "density_coverage",
    "distances",
    "feature_rows",
    "frechet_at_infinity",
    "frechet_between",
    "frechet_deviation",
    "frechet_distance",
    "frechet_influences",
    "halves",
    "inception_score",
    "js_divergence",
    "kid",
    "kl_divergence",
    "middle",
    "mmd",
    "moments",
    "ms_ssim",
    "ms_ssim_scales",
    "perceptual_path_length",
    "permutation_p",
    "polynomial_kernel",
    "polynomial_mmd",
    "precision_recall",
    "slerp",
    "ssim",
    "wasserstein1",
]
