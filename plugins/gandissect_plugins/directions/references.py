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
HYVARINEN = Reference(
    "Hyvärinen, A.",
    1999,
    "Fast and robust fixed-point algorithms for independent component analysis",
    "IEEE Trans. Neural Networks 10",
)
BJORCK = Reference(
    "Björck, Å. & Golub, G. H.",
    1973,
    "Numerical methods for computing angles between linear subspaces",
    "Math. Comp. 27",
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
WU = Reference(
    "Wu, Z., Lischinski, D. & Shechtman, E.",
    2021,
    "StyleSpace analysis: disentangled controls for StyleGAN image generation",
    "CVPR",
)
YANG = Reference(
    "Yang, C., Shen, Y. & Zhou, B.",
    2021,
    "Semantic hierarchy emerges in deep generative representations for scene synthesis",
    "IJCV 129",
)
YUKSEL = Reference(
    "Yüksel, O. K., Simsar, E., Er, E. G. & Yanardag, P.",
    2021,
    "LatentCLR: a contrastive learning approach for unsupervised discovery of interpretable directions",
    "ICCV",
)
WILSON = Reference(
    "Wilson, E. B.", 1927, "Probable inference, the law of succession, and statistical inference", "JASA 22"
)
