"""All families, in the order in which they are asked.

family, role = recognised(state)        # (StyleGan2(), "generator"), or (None, "")
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from gandissect_adapters.families.family import Family
from gandissect_adapters.recognise.unwrap import Role, StateDict

# module of this package -> classes in it; the first family that claims a network gets it.
MODULES: dict[str, tuple[str, ...]] = {
    "progressive.rosinality_progan": ("RosinalityProGan",),
    "progressive.genforce_pggan": ("GenforcePgGan",),
    "residual.biggan": ("BigGanPyTorch",),
    "residual.biggan_hf": ("HuggingFaceBigGan",),
    "residual.studiogan": ("StudioGan",),
    "progressive.nashory": ("NashoryPgGan",),
    "progressive.ganzoo": ("GanZooProgressive", "GanZooDcgan"),
    "fast.fastgan": ("FastGan",),
    "fast.projected_gan": ("ProjectedFastGan",),
    "fast.lightweight_gan": ("LightweightGan",),
    "fast.r3gan": ("R3Gan",),
    "fast.gigagan": ("GigaGan",),
    "progressive.akanimax": ("ProGan", "BmsgGan"),
    "style.stylegan2": ("StyleGan2",),
    "style.styleganxl": ("StyleGanXl",),
    "style.stylegan3": ("StyleGan3",),
    "residual.mimicry": ("Mimicry",),
    "residual.heykeetae_sagan": ("HeykeetaeSagan",),
    "residual.caogang": ("CaogangWgan",),
    "residual.cosgrove": ("Cosgrove",),
    "style.rosinality_stylegan1": ("RosinalityStyleGan1",),
    "style.genforce": ("GenforceStyleGan", "GenforceStyleGan2"),
    "style.lucidrains": ("LucidrainsStyleGan2",),
    "style.rosinality_stylegan2": ("RosinalityStyleGan2",),
    "classic.infogan": ("NatsuInfoGan",),
    "classic.pytorch_gan_critics": ("PyTorchGanCritics",),
    "classic.pytorch_gan_coupled": ("PyTorchGanCoGan", "PyTorchGanAaeEncoder"),
    "images.pytorch_gan_images": ("PyTorchGanCycleGan", "PyTorchGanPix2Pix", "PyTorchGanStarGan"),
    "images.pytorch_gan_super_resolution": ("PyTorchGanSrgan", "PyTorchGanEsrgan"),
    "images.super_resolution": ("Leftthomas", "Esrgan", "Srvgg"),
    "images.animegan": ("AnimeGan",),
    "images.vqgan": ("TamingVqGan", "DiffusersVq"),
    "images.junyanz": ("JunyanzResnet", "JunyanzUnet", "PatchGan"),
    "images.plain_translation": ("PlainTranslation",),  # asked last: it knows no names
}


@cache
def families() -> tuple[Family, ...]:
    """One of each family, made once: they keep nothing between files."""
    return tuple(
        getattr(import_module(f"gandissect_adapters.families.{module}"), name)()
        for module, names in MODULES.items()
        for name in names
    )


def recognised(net: StateDict) -> tuple[Family | None, Role]:
    """The family that ``net`` belongs to and its role there."""
    for family in families():
        if role := family.role(net):
            return family, role
    return None, ""
