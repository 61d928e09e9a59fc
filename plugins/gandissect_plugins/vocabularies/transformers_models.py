"""Segmenters of the transformers library: SegFormer and its kin, EoMT, Mask2Former; CLIPSeg and SAM 3 for words of one's own.

TransformersModel("segformer-b0-ade")               # a folder with config.json and model.safetensors
TransformersModel("clipseg#tree,door,sky")          # what to look for, in words
TransformersModel("hf://owner/repo")                # fetched once from the Hub
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Concept
from gandissect.errors import UsageError, unknown_name
from gandissect.files.fetching import fetched

from .networks import ImageByImage

EXPECTED = "transformers:FOLDER, transformers:FOLDER#tree,door,sky, or transformers:hf://owner/repo to fetch one"
INSTALL = "needs the package transformers; type: pip install 'gandissect[segment]'"
KINDS = ("*.json", "*.safetensors", "*.txt", "*.model")
PRESENT = 0.5  # probability above which a described thing is said to be there


class TransformersModel(ImageByImage):
    """A segmenter saved with ``save_pretrained``, with that library's own pre- and post-processing; safetensors only.

    Networks with classes put each pixel into one; those that take words (CLIPSeg, SAM 3) find each of the words where its
    probability is above 0.5, and probabilities of different words are not calibrated against each other.

    References:
        Xie et al. 2021, SegFormer; Kerssies et al. 2025, Your ViT is Secretly an Image Segmentation Model; Cheng et al. 2022,
        Masked-attention Mask Transformer; Lüddecke & Ecker 2022, Image Segmentation Using Text and Image Prompts; Carion et
        al. 2025, SAM 3: Segment Anything with Concepts.
    """

    name = "transformers"

    def __init__(self, spec: str = "") -> None:
        """The network of a folder, of a repository in the Hub's cache, or of an ``hf://`` address; ``#`` chooses its labels.

        Raises:
            UsageError: no such folder, no segmenter in it, a label it does not have, or words missing where it takes them.
        """
        if self.unavailable():
            raise UsageError(f"transformers:{spec} {INSTALL}")
        place, _, listed = spec.partition("#")
        words = [word.strip() for word in listed.split(",") if word.strip()]
        self._net = _opened(_folder(place), words)

    @classmethod
    def unavailable(cls) -> str:
        return "" if importlib.util.find_spec("transformers") else INSTALL

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, self._net.category) for name in self._net.names)

    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Masks and probabilities at the size of the image."""
        return self._net(image)


class _Network(Protocol):
    @property
    def names(self) -> Sequence[str]: ...

    @property
    def category(self) -> str: ...

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]: ...


class _Classes:
    """A network with a list of classes."""

    category = "object"

    def __init__(self, model: Any, processor: Any, wanted: Sequence[str]) -> None:
        self._model, self._processor = model, processor
        labels = [str(model.config.id2label[place]) for place in range(len(model.config.id2label))]
        for name in wanted:
            if name not in labels:
                raise unknown_name("label", name, labels)
        self._places = [labels.index(name) for name in wanted] if wanted else list(range(len(labels)))
        self.names = [labels[place] for place in self._places]

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        inputs = _prepared(self._processor, image)
        outputs = self._model.to(image.device)(**inputs)
        if "patch_offsets" in inputs:
            outputs.patch_offsets = inputs["patch_offsets"]
        size = tuple(image.shape[1:])
        found = self._processor.post_process_semantic_segmentation(
            outputs, target_sizes=[size], return_segmentation_scores=True
        )[0]
        scores = found["segmentation_scores"]
        # Without logits: sums over queries of class probability × mask probability (Cheng et al. 2022), which may exceed 1.
        summed = scores / scores.sum(0, keepdim=True).clamp(min=1)
        likely = scores.softmax(0) if hasattr(outputs, "logits") else summed
        places = torch.tensor(self._places, device=image.device)
        return found["segmentation"] == places[:, None, None], likely[places]


class _Clipseg:
    """One plane of logits per description; text and image are encoded once."""

    category = "described"

    def __init__(self, model: Any, processor: Any, words: Sequence[str]) -> None:
        self._model, self._processor, self.names = model, processor, words
        tokens = processor.tokenizer(list(words), padding=True, return_tensors="pt")
        with torch.no_grad():
            self._described: Tensor = model.get_conditional_embeddings(
                batch_size=len(words), input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = _prepared(self._processor.image_processor, image)["pixel_values"]
        model, described = self._model.to(image.device), self._described.to(image.device)
        # The library's own forward runs the image encoder without gradients, and once for each description.
        seen = model.clip.get_image_features(
            pixel_values=pixels, interpolate_pos_encoding=True, output_hidden_states=True
        )
        states = [seen.hidden_states[place + 1].expand(len(described), -1, -1) for place in model.extract_layers]
        logits = model.decoder(states, described).logits
        planes = logits.reshape(1, len(described), *logits.shape[-2:]).float()
        likely = F.interpolate(planes, image.shape[1:], mode="bilinear")[0].sigmoid()
        return likely > PRESENT, likely


class _Sam3:
    """One semantic mask per noun phrase; the image is encoded once."""

    category = "described"

    def __init__(self, model: Any, processor: Any, words: Sequence[str]) -> None:
        self._model, self._processor, self.names = model, processor, words
        self._tokens = [processor(text=word, return_tensors="pt") for word in words]

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        model, size = self._model.to(image.device), tuple(image.shape[1:])
        pixels = _prepared(self._processor.image_processor, image)["pixel_values"]
        seen = model.get_vision_features(pixel_values=pixels)
        planes = []
        for tokens in self._tokens:
            text = {name: tokens[name].to(image.device) for name in ("input_ids", "attention_mask")}
            found = self._processor.post_process_semantic_segmentation(
                model(vision_embeds=seen, **text), target_sizes=[size], return_segmentation_scores=True
            )
            planes.append(found[0]["segmentation_scores"][0])
        likely = torch.stack(planes).float()
        return likely > PRESENT, likely


def _prepared(processor: Any, image: Tensor) -> dict[str, Any]:
    """What the library's own processor makes of one image; it keeps the gradient of a float one, whose range is 0..1."""
    made = processor(
        images=image, do_rescale=image.dtype == torch.uint8, input_data_format="channels_first", return_tensors="pt"
    )
    return {name: made[name] for name in ("pixel_values", "pixel_mask", "patch_offsets") if made.get(name) is not None}


def _folder(place: str) -> Path:
    """Where the network lies: a folder, the Hub's cache on this machine, or, for an address, what was fetched."""
    if place.startswith("hf://"):
        return fetched(place, KINDS)
    if place and Path(place).expanduser().is_dir():
        return Path(place).expanduser()
    if place.count("/") == 1 and not place.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(place, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError) as error:  # the latter: not a possible name
            message = f"no folder {place}, and the Hub's cache has no such repository; type transformers:hf://{place} to fetch it"
            raise UsageError(message) from error
    raise UsageError(f"no folder {place!r} with a network of the transformers library; type {EXPECTED}")


def _opened(folder: Path, words: Sequence[str]) -> _Network:
    hub = importlib.import_module("transformers")
    try:
        config = hub.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no network of the transformers library known here: {_told(error)}") from error
    if config.model_type not in ("clipseg", "sam3"):
        model = _loaded(_segmentation_class(hub, config), folder)
        return _Classes(model, _processor(hub.AutoImageProcessor, folder), words)
    if not words:
        raise UsageError(f"{folder} looks for what it is told; type transformers:{folder}#tree,door,sky")
    processor = _processor(hub.AutoProcessor, folder)
    if config.model_type == "clipseg":
        return _Clipseg(_loaded(hub.CLIPSegForImageSegmentation, folder), processor, words)
    return _Sam3(_loaded(hub.Sam3Model, folder), processor, words)


def _segmentation_class(hub: Any, config: Any) -> Any:
    """The class that makes masks of one image from a network of this configuration."""
    for auto in (hub.AutoModelForSemanticSegmentation, hub.AutoModelForUniversalSegmentation):
        if type(config) in auto._model_mapping and config.model_type != "oneformer":
            return auto
    raise UsageError(
        f"a network of type {config.model_type} names no classes of pixels; "
        "expected SegFormer, BEiT, DPT, UPerNet, MobileViT, EoMT, Mask2Former, CLIPSeg or SAM 3"
    )


def _loaded(cls: Any, folder: Path) -> Any:
    """The network in eval mode.

    Raises:
        UsageError: no safetensors file, a damaged one, or one without the part that makes masks.
    """
    try:
        with _quiet():
            model, told = cls.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # safetensors, OSError and shape errors alike
        raise UsageError(f"no weights in {folder} (only .safetensors files are read): {_told(error)}") from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise UsageError(f"{folder} holds no trained segmenter: {len(missing)} tensors are missing ({missing[0]}, …)")
    return model.eval().requires_grad_(False)


def _processor(cls: Any, folder: Path) -> Any:
    try:
        return cls.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UsageError(f"{folder} does not say how images are prepared for its network: {_told(error)}") from error


@contextmanager
def _quiet() -> Generator[None]:
    """No progress bar of the library for the length of the block."""
    logging = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _told(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
