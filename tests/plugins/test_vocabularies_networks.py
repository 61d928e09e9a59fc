"""Networks as vocabularies say what their own libraries say, take weights from disk only, and refuse in one sentence."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from gandissect_plugins.vocabularies import TorchvisionModel, TransformersModel, transformers_models
from tiny_segmenters import saved
from torch import Tensor

from gandissect.blocks import to_uint8
from gandissect.errors import UnknownName, UsageError
from gandissect.vocabulary import build_segmenter

CLASSED = ("segformer", "eomt", "eomt_dinov3", "mask2former")
WORDS = ("tree", "sky")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def hub() -> Any:
    return pytest.importorskip("transformers", reason="pip install 'gandissect[segment]'")


@pytest.fixture(scope="module")
def folders(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("networks")
    return {kind: saved(kind, home / kind) for kind in (*CLASSED, "clipseg", "sam3")}


def pictures(size: tuple[int, int] = (40, 48)) -> Tensor:
    """Two smooth coloured images: float32 [2, 3, H, W] in [-1, 1]."""
    coarse = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


def as_files(images: Tensor) -> list[Any]:
    from PIL import Image

    return [Image.fromarray(pixels) for pixels in to_uint8(images)]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "eomt" else [pytest.mark.slow]) for kind in CLASSED]
)
def test_classes_are_those_of_the_librarys_own_post_processing(hub: Any, folders: dict[str, Path], kind: str) -> None:
    auto = hub.AutoModelForSemanticSegmentation if kind == "segformer" else hub.AutoModelForUniversalSegmentation
    model, processor = auto.from_pretrained(folders[kind]).eval(), hub.AutoImageProcessor.from_pretrained(folders[kind])
    inputs = processor(as_files(pictures()), return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    outputs.patch_offsets = inputs.get("patch_offsets")
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[(40, 48)] * 2)
    segmenter = build_segmenter(f"transformers:{folders[kind]}")
    masks = segmenter.segment(pictures(), range(2))
    assert [concept.name for concept in segmenter.concepts] == ["wall", "sky", "tree"]
    agree = (masks.int().argmax(1) == torch.stack(expected)).float().mean()
    assert (masks.sum(1) == 1).all() and agree > 0.999, float(agree)  # one image at a time: rounding may move a pixel
    assert masks.any(3).any(2).any(0).sum() > 1  # a network that says one thing everywhere would show nothing


@pytest.mark.parametrize("kind", CLASSED)
def test_soft_scores_of_classes_are_probabilities_that_agree_with_the_masks(
    folders: dict[str, Path], kind: str
) -> None:
    segmenter, images = TransformersModel(str(folders[kind])), pictures().requires_grad_()
    soft = segmenter.soft(images)
    assert soft is not None and soft.shape == (2, 3, 40, 48)
    assert bool((soft >= 0).all()) and bool((soft.sum(1) < 1 + 1e-5).all())
    (slope,) = torch.autograd.grad(soft[:, 0].mean(), images)
    same = (soft.argmax(1) == segmenter.segment(images, range(2)).int().argmax(1)).float().mean()
    assert slope.isfinite().all() and bool(slope.any()) and same > 0.95


def test_words_for_clipseg_give_what_the_librarys_own_forward_gives(hub: Any, folders: dict[str, Path]) -> None:
    folder, images = folders["clipseg"], as_files(pictures())
    model, processor = (
        hub.CLIPSegForImageSegmentation.from_pretrained(folder).eval(),
        hub.AutoProcessor.from_pretrained(folder),
    )
    segmenter = TransformersModel(f"{folder}#tree, sky")
    inputs = processor(text=list(WORDS), images=[images[0]] * 2, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[None]
    likely = torch.nn.functional.interpolate(logits, (40, 48), mode="bilinear")[0].sigmoid()
    masks = segmenter.segment(pictures(), range(2))
    assert [concept.name for concept in segmenter.concepts] == list(WORDS)
    assert (masks[0] == (likely > 0.5)).float().mean() > 0.999 and 0.02 < masks.float().mean() < 0.98
    soft = segmenter.soft(pictures())
    assert soft is not None and (soft[0] - likely).abs().mean() < 0.02  # the soft path does not round to 8 bits


def test_words_for_sam_3_give_the_librarys_own_semantic_masks(hub: Any, folders: dict[str, Path]) -> None:
    folder, images = folders["sam3"], as_files(pictures())
    model, processor = hub.Sam3Model.from_pretrained(folder).eval(), hub.AutoProcessor.from_pretrained(folder)
    inputs = processor(images=images, text=["sky"] * 2, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    expected = torch.stack(processor.post_process_semantic_segmentation(outputs, target_sizes=[(40, 48)] * 2)) > 0
    masks = TransformersModel(f"{folder}#tree,sky").segment(pictures(), range(2))
    assert masks.shape == (2, 2, 40, 48) and (masks[:, 1] == expected).float().mean() > 0.999
    assert 0.02 < expected.float().mean() < 0.98


@pytest.mark.parametrize("kind", ["clipseg", "sam3"])
def test_soft_scores_of_words_have_a_slope(folders: dict[str, Path], kind: str) -> None:
    images = pictures().requires_grad_()
    soft = TransformersModel(f"{folders[kind]}#sky").soft(images)
    assert soft is not None and bool(((soft >= 0) & (soft <= 1)).all())
    (slope,) = torch.autograd.grad(soft.mean(), images)
    assert slope.isfinite().all() and bool(slope.any())


def test_labels_after_the_hash_choose_and_order_the_concepts(folders: dict[str, Path]) -> None:
    folder = folders["segformer"]
    every, two = TransformersModel(str(folder)), TransformersModel(f"{folder}#tree,wall")
    assert [concept.name for concept in two.concepts] == ["tree", "wall"]
    assert torch.equal(two.segment(pictures(), [0, 1]), every.segment(pictures(), [0, 1])[:, [2, 0]])
    with pytest.raises(UnknownName, match="did you mean tree"):
        TransformersModel(f"{folder}#trees")


def test_masks_of_a_network_do_not_depend_on_the_batch(folders: dict[str, Path]) -> None:
    segmenter = TransformersModel(str(folders["segformer"]))
    alone = [segmenter.segment(image[None], [0]) for image in pictures()]
    assert torch.equal(torch.cat(alone), segmenter.segment(pictures(), [0, 1]))
    assert segmenter.segment(pictures()[:0], []).shape == (0, 3, 40, 48)
    assert segmenter.segment(pictures()[:, :1], [0, 1]).shape == (2, 3, 40, 48)  # grey


def test_a_network_that_takes_words_asks_for_them(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="#tree,door,sky"):
        TransformersModel(str(folders["clipseg"]))


@pytest.mark.parametrize(
    ("place", "said"),
    [("", "transformers:FOLDER"), ("no/such/folder", "no folder"), ("nobody/nothing", "hf://nobody/nothing")],
)
def test_a_place_without_a_network_says_what_to_type(hub: Any, place: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        TransformersModel(place)
    assert "\n" not in str(refused.value)


def test_only_an_address_is_fetched_and_no_pickle_with_it(
    hub: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Sequence[str]]] = []

    def fetched(address: str, kinds: Sequence[str]) -> Path:
        asked.append((address, kinds))
        return folders["segformer"]

    monkeypatch.setattr(transformers_models, "fetched", fetched)
    segmenter = TransformersModel("hf://owner/repo#sky")
    assert [concept.name for concept in segmenter.concepts] == ["sky"]
    assert [address for address, _ in asked] == ["hf://owner/repo"] and "*.safetensors" in asked[0][1]
    assert not any(kind.endswith(("bin", "pt", "pth", "pkl")) for kind in asked[0][1])


def test_a_pickle_of_weights_is_not_read(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folders["segformer"] / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"only \.safetensors"):
        TransformersModel(str(tmp_path))


def test_a_backbone_without_its_head_is_no_segmenter(hub: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    hub.SegformerModel.from_pretrained(folders["segformer"]).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes(
        (folders["segformer"] / "preprocessor_config.json").read_bytes()
    )
    with pytest.raises(UsageError, match="no trained segmenter"):
        TransformersModel(str(tmp_path))


@pytest.mark.parametrize("kind", ["bert", "oneformer", "nobody-knows-it"])
def test_a_network_that_makes_no_masks_is_refused(hub: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UsageError, match=r"names no classes of pixels|no network of the transformers library"):
        TransformersModel(str(tmp_path))


def test_without_the_library_one_sentence_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else find(name, *rest)
    )
    with pytest.raises(UsageError, match=r"pip install 'gandissect\[segment\]'"):
        TransformersModel("anything")
    assert "gandissect[segment]" in TransformersModel.unavailable()


def weights(model: str, path: Path, classes: int = 21) -> Path:
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = models.get_model(model, weights=None, weights_backbone=None, num_classes=classes)
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.parametrize(
    "model",
    [pytest.param("deeplabv3_mobilenet_v3_large", marks=pytest.mark.slow), "lraspp_mobilenet_v3_large"],
)
def test_torchvision_models_say_what_torchvision_says(model: str, tmp_path: Path) -> None:
    from torchvision import models
    from torchvision.transforms._presets import SemanticSegmentation

    file = weights(model, tmp_path / "weights.pth")
    segmenter = build_segmenter(f"torchvision:{model}={file}")
    net = models.get_model(model, weights=None, weights_backbone=None, num_classes=21).eval()
    net.load_state_dict(torch.load(file, weights_only=True))
    prepared = SemanticSegmentation(resize_size=520)(as_files(pictures())[0])
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(net(prepared[None])["out"], (40, 48), mode="bilinear")[0].argmax(0)
    names = [concept.name for concept in segmenter.concepts]
    assert len(names) == 21 and names[0] == "background" and {"person", "bird", "sofa"} <= set(names)
    found = segmenter.segment(pictures()[:1], [0])[0].int().argmax(0)
    assert (found == expected).float().mean() > 0.97  # torchvision resizes files by PIL, which rounds otherwise
    images = pictures()[:1].requires_grad_()
    soft = segmenter.soft(images)
    assert soft is not None and torch.allclose(soft.sum(1), torch.ones(1, 40, 48), atol=1e-5)
    assert torch.autograd.grad(soft[:, 3].mean(), images)[0].isfinite().all()


def test_weights_with_other_classes_are_numbered(tmp_path: Path) -> None:
    model = "lraspp_mobilenet_v3_large"
    segmenter = TorchvisionModel(f"{model}={weights(model, tmp_path / 'five.pth', 5)}")
    assert [concept.name for concept in segmenter.concepts] == [f"class {number}" for number in range(5)]


def test_torchvision_fetches_nothing_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    internals = importlib.import_module("torchvision.models._api")
    monkeypatch.setattr(internals, "load_state_dict_from_url", lambda address, **_options: asked.append(address) or {})
    with pytest.raises(UsageError, match="=download"):
        TorchvisionModel("lraspp_mobilenet_v3_large")
    assert not asked
    with pytest.raises(UsageError, match="another network"):
        TorchvisionModel("lraspp_mobilenet_v3_large=download")
    assert len(asked) == 1 and asked[0].startswith("https://download.pytorch.org/")


def test_wrong_models_files_and_weights_are_said_in_one_sentence(tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.pth", tmp_path / "other.pth"
    broken.write_bytes(b"no weights at all")
    torch.save({"weight": torch.zeros(2)}, other)
    cases = {"deeplabv3_mobilenet=x": "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large=nowhere.pth": "no file",
             f"lraspp_mobilenet_v3_large={broken}": "without running code", f"lraspp_mobilenet_v3_large={other}": "another network",
             "": "torchvision:MODEL=FILE"}  # fmt: skip
    for spec, said in cases.items():
        with pytest.raises(UsageError, match=said) as refused:
            TorchvisionModel(spec)
        assert "\n" not in str(refused.value)


def test_a_torchvision_that_cannot_be_imported_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UsageError, match="pip install --upgrade torch torchvision"):
        TorchvisionModel("lraspp_mobilenet_v3_large=x")
