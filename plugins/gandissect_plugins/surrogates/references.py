"""Where the methods come from.

Section("What the discriminator goes by", references=OF_TREES)
"""

from __future__ import annotations

from gandissect.blocks import Reference

OF_TREES = (
    Reference(
        "Breiman, L., Friedman, J., Olshen, R. & Stone, C.", 1984, "Classification and Regression Trees", "Wadsworth"
    ),
    Reference(
        "Craven, M. & Shavlik, J.", 1996, "Extracting tree-structured representations of trained networks", "NIPS 8"
    ),
    Reference("Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"),
)
OF_READINGS = (
    Reference(
        "Hoerl, A. & Kennard, R.",
        1970,
        "Ridge regression: biased estimation for nonorthogonal problems",
        "Technometrics 12",
    ),
    Reference("Phipson, B. & Smyth, G.", 2010, "Permutation p-values should never be zero", "Stat. Appl. Genet. 9"),
)
OF_IMPORTANCE = (
    Reference("Breiman, L.", 2001, "Random forests", "Machine Learning 45"),
    Reference(
        "Castro, J., Gómez, D. & Tejada, J.",
        2009,
        "Polynomial calculation of the Shapley value based on sampling",
        "Comput. Oper. Res. 36",
    ),
    Reference(
        "Štrumbelj, E. & Kononenko, I.",
        2014,
        "Explaining prediction models and individual predictions with feature contributions",
        "Knowl. Inf. Syst. 41",
    ),
    Reference("Westfall, P. & Young, S.", 1993, "Resampling-based multiple testing", "Wiley"),
)
