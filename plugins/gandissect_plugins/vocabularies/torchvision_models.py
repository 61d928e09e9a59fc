"""The segmenters of torchvision, with weights from a file; torchvision's own are fetched only when that is asked for.

TorchvisionModel("deeplabv3_mobilenet_v3_large=weights.pth")        # 21 classes of Pascal VOC
TorchvisionModel("lraspp_mobilenet_v3_large=download")
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.concepts import Concept
from gandissect.errors import UsageError, unknown_name

from .networks import ImageByImage, chosen_masks

EXPECTED = "torchvision:MODEL=FILE.pth, or torchvision:MODEL=download to fetch torchvision's own weights"
RESIZE = 520  # shortest side, as in the presets of torchvision's own weights
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, ditto


class TorchvisionModel(ImageByImage):
    """Any model of ``torchvision.models.segmentation``; every pixel is in the class of its largest logit.

    References:
        Chen et al. 2017, Rethinking Atrous Convolution for Semantic Image Segmentation; Long, Shelhamer, Darrell 2015, Fully
        Convolutional Networks for Semantic Segmentation; Howard et al. 2019, Searching for MobileNetV3.
    """

    name = "torchvision"

    def __init__(self, spec: str = "") -> None:
        """The network that ``MODEL=FILE`` or ``MODEL=download`` names.

        Raises:
            UsageError: no such model or file, no weights given, or weights of another network.
        """
        model, _, weights = spec.partition("=")
        known = _known_models()
        if model not in known:
            raise unknown_name("segmentation model of torchvision", model, known, f"(expected {EXPECTED})")
        if not weights:
            raise UsageError(f"torchvision:{model} names no weights, and none are fetched unasked; type {EXPECTED}")
        state = _fetched(model) if weights == "download" else _read(Path(weights))
        self._net, classes = _built(model, state, weights)
        self._names = _class_names(model, classes)

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "object" if name != "background" else "background") for name in self._names)

    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Masks and class probabilities; the image is resized to 520 pixels, the logits back to the image."""
        from torchvision.transforms import functional as transforms

        net = self._net.to(image.device)
        resized = transforms.resize(image, [RESIZE], antialias=True)
        unit = resized.float() / 255 if resized.dtype == torch.uint8 else resized
        logits = net(transforms.normalize(unit, MEAN, STD)[None])["out"]
        scores = F.interpolate(logits, image.shape[1:], mode="bilinear")[0]
        return chosen_masks(scores), scores.softmax(0)


def _models() -> Any:
    """The module ``torchvision.models``.

    Raises:
        UsageError: it is missing, or was built for another torch, which shows only when it is imported.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"torchvision cannot be used ({reason}); type: pip install --upgrade torch torchvision"
        ) from error
    return models


def _known_models() -> list[str]:
    models = _models()
    return [str(name) for name in models.list_models(module=models.segmentation)]


def _fetched(model: str) -> Mapping[str, Tensor]:
    weights = _models().get_model_weights(model).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is the former, a wrong hash the latter
        raise UsageError(f"{weights.url} cannot be fetched ({error}); type torchvision:{model}=FILE.pth") from error
    return state


def _read(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name from a ``.safetensors`` file or one of ``torch.save`` that holds nothing but tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UsageError(f"no file of weights {path}; type {EXPECTED}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"{path} holds no tensors that can be read without running code in it") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} is no state dict; expected what torch.save(model.state_dict(), FILE) writes")
    return state


def _built(model: str, state: Mapping[str, Tensor], source: str) -> tuple[nn.Module, int]:
    """The network with these weights, in eval mode, and its number of classes."""
    last = [value for name, value in state.items() if value.dim() == 4 and "classifier" in name.split(".")[0]]
    main = [value for name, value in state.items() if value.dim() == 4 and name.startswith("classifier.")]
    classes = int((main or last or [torch.zeros(21)])[-1].shape[0])
    extra = {"aux_loss": any(name.startswith("aux_classifier.") for name in state)} if "lraspp" not in model else {}
    net: nn.Module = _models().get_model(model, weights=None, weights_backbone=None, num_classes=classes, **extra)
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UsageError(f"{source} holds the weights of another network than {model}") from error
    return net.eval().requires_grad_(False), classes


def _class_names(model: str, classes: int) -> list[str]:
    """The names that torchvision gives the classes of its own weights; numbers where there are not as many."""
    named = [str(name) for name in _models().get_model_weights(model).DEFAULT.meta["categories"]]
    if len(named) != classes:
        return [f"class {number}" for number in range(classes)]
    return ["background" if name == "__background__" else name for name in named]
