"""Where the methods come from.

Section("Interpolation", references=(KARRAS, WHITE))
"""

from __future__ import annotations

from gandissect.blocks import Reference

BENJAMINI = Reference(
    "Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"
)
HARKONEN = Reference(
    "Härkönen, E., Hertzmann, A., Lehtinen, J. & Paris, S.",
    2020,
    "GANSpace: Discovering interpretable GAN controls",
    "NeurIPS",
)
KARRAS = Reference(
    "Karras, T., Laine, S. & Aila, T.",
    2019,
    "A style-based generator architecture for generative adversarial networks",
    "CVPR",
)
RADFORD = Reference(
    "Radford, A., Metz, L. & Chintala, S.",
    2016,
    "Unsupervised representation learning with deep convolutional generative adversarial networks",
    "ICLR",
)
SHEN = Reference(
    "Shen, Y., Gu, J., Tang, X. & Zhou, B.",
    2020,
    "Interpreting the latent space of GANs for semantic face editing",
    "CVPR",
)
SHEN_ZHOU = Reference("Shen, Y. & Zhou, B.", 2021, "Closed-form factorization of latent semantics in GANs", "CVPR")
WHITE = Reference("White, T.", 2016, "Sampling generative networks", "arXiv:1609.04468")
WILSON = Reference(
    "Wilson, E. B.", 1927, "Probable inference, the law of succession, and statistical inference", "JASA 22"
)
