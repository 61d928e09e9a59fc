"""Segmenters of the transformers library with tiny random weights, written to disk as their authors would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LABELS = {0: "wall", 1: "sky", 2: "tree"}
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
VOCABULARY = [*LETTERS, *[f"{letter}</w>" for letter in LETTERS], "<|startoftext|>", "<|endoftext|>"]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
END = len(VOCABULARY) - 1
TEXT = {**SMALL, "vocab_size": len(VOCABULARY), "num_hidden_layers": 1, "eos_token_id": END, "bos_token_id": END - 1,
        "pad_token_id": END, "max_position_embeddings": 32, "projection_dim": 16}  # fmt: skip
CLASSES: dict[str, Any] = {"id2label": LABELS, "label2id": {name: place for place, name in LABELS.items()}}


def saved(kind: str, folder: Path) -> Path:
    """The folder of a network of this kind with seeded weights, larger than at the start of training so that pixels differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = MAKERS[kind](folder)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" not in name and weight.dim() > 1:
                    weight.mul_(4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _segformer(_folder: Path) -> tuple[Any, Any]:
    import transformers as hub

    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2]}
    config = hub.SegformerConfig(**sizes, decoder_hidden_size=16, **CLASSES)
    return hub.SegformerForSemanticSegmentation(config), hub.SegformerImageProcessor(size={"height": 64, "width": 64})


def _eomt(_folder: Path) -> tuple[Any, Any]:
    import transformers as hub

    config = hub.EomtConfig(hidden_size=32, num_attention_heads=2, **_vit(), **CLASSES)
    size = {"shortest_edge": 64, "longest_edge": None}
    return hub.EomtForUniversalSegmentation(config), hub.EomtImageProcessor(size=size, do_split_image=True)


def _eomt_dinov3(_folder: Path) -> tuple[Any, Any]:
    import transformers as hub

    config = hub.EomtDinov3Config(hidden_size=32, intermediate_size=32, num_attention_heads=2, **_vit(), **CLASSES)
    size = {"shortest_edge": 64, "longest_edge": 64}
    return hub.EomtDinov3ForUniversalSegmentation(config), hub.EomtImageProcessor(size=size, do_pad=True)


def _vit() -> dict[str, int]:
    return {"num_hidden_layers": 4, "image_size": 64, "patch_size": 16, "num_blocks": 1, "num_queries": 5,
            "num_register_tokens": 1, "num_upscale_blocks": 1}  # fmt: skip


def _mask2former(_folder: Path) -> tuple[Any, Any]:
    import transformers as hub

    backbone = hub.SwinConfig(image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
                              out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    sizes = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim"), 32)
    config = hub.Mask2FormerConfig(backbone_config=backbone, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
                                   dim_feedforward=16, num_queries=5, **sizes, **CLASSES)  # fmt: skip
    processor = hub.Mask2FormerImageProcessor(size={"height": 64, "width": 64})
    return hub.Mask2FormerForUniversalSegmentation(config), processor


def _clipseg(folder: Path) -> tuple[Any, Any]:
    import transformers as hub

    vision = {**SMALL, "num_hidden_layers": 3, "image_size": 64, "patch_size": 16}
    config = hub.CLIPSegConfig(text_config=TEXT, vision_config=vision, projection_dim=16, extract_layers=[0, 1, 2], reduce_dim=8,
                               decoder_num_attention_heads=2, decoder_intermediate_size=16, conditional_layer=0)  # fmt: skip
    images = hub.ViTImageProcessor(size={"height": 64, "width": 64})
    return hub.CLIPSegForImageSegmentation(config), hub.CLIPSegProcessor(images, _tokenizer(folder))


def _sam3(folder: Path) -> tuple[Any, Any]:
    import transformers as hub

    backbone = {**SMALL, "model_type": "sam3_vit_model", "num_hidden_layers": 2, "image_size": 112, "patch_size": 14, "window_size": 4,
                "global_attn_indexes": [1], "pretrain_image_size": 56}  # fmt: skip
    vision = {
        "backbone_config": backbone,
        "fpn_hidden_size": 16,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }
    layers = {**SMALL, "num_layers": 1}
    config = hub.Sam3Config(vision_config=vision, text_config=TEXT, geometry_encoder_config=layers, detr_encoder_config=layers,
                            detr_decoder_config={**layers, "num_queries": 4},
                            mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2})  # fmt: skip
    images = hub.Sam3ImageProcessor(size={"height": 112, "width": 112})
    return hub.Sam3Model(config), hub.Sam3Processor(images, _tokenizer(folder))


def _tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer that knows single letters."""
    import transformers as hub

    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return hub.CLIPTokenizer.from_pretrained(folder)


MAKERS: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    "segformer": _segformer, "eomt": _eomt, "eomt_dinov3": _eomt_dinov3, "mask2former": _mask2former, "clipseg": _clipseg,
    "sam3": _sam3,
}  # fmt: skip
