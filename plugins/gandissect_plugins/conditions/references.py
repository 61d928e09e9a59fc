"""Sources of the tests of conditions."""

from __future__ import annotations

from gandissect.blocks import Reference

MIRZA = Reference("Mirza, M. & Osindero, S.", 2014, "Conditional generative adversarial nets", "arXiv:1411.1784")
CHEN = Reference("Chen, X. et al.", 2016, "InfoGAN: interpretable representation learning", "NeurIPS")
MILLER = Reference(
    "Miller, G. A.", 1955, "Note on the bias of information estimates", "Information Theory in Psychology"
)
PHIPSON = Reference(
    "Phipson, B. & Smyth, G.", 2010, "Permutation p-values should never be zero", "Stat. Appl. Genet. 9"
)
BENJAMINI = Reference(
    "Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"
)
SEARLE = Reference("Searle, S. R., Casella, G. & McCulloch, C. E.", 1992, "Variance components", "Wiley")
LOPEZ_PAZ = Reference("Lopez-Paz, D. & Oquab, M.", 2017, "Revisiting classifier two-sample tests", "ICLR")
KRUSKAL = Reference(
    "Kruskal, W. H. & Wallis, W. A.", 1952, "Use of ranks in one-criterion variance analysis", "J. Am. Stat. Assoc. 47"
)
