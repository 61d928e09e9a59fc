"""Sources of the tests of translators."""

from __future__ import annotations

from gandissect.blocks import Reference

ISOLA = Reference("Isola, P. et al.", 2017, "Image-to-image translation with conditional adversarial networks", "CVPR")
ZHU = Reference(
    "Zhu, J.-Y. et al.", 2017, "Unpaired image-to-image translation using cycle-consistent adversarial networks", "ICCV"
)
CHU = Reference("Chu, C., Zhmoginov, A. & Sandler, M.", 2017, "CycleGAN, a master of steganography", "arXiv:1712.02950")
WANG = Reference(
    "Wang, Z. et al.", 2004, "Image quality assessment: from error visibility to structural similarity", "TIP"
)
MANTEL = Reference("Mantel, N.", 1967, "The detection of disease clustering", "Cancer Research 27")
BENJAMINI = Reference(
    "Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"
)
