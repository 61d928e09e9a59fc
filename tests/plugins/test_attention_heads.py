"""Planted heads of ``nn.MultiheadAttention``: one looks at the left neighbour, one at its own colour, or none at anything."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from gandissect_plugins.attention import (
    Attention,
    AttentionLayer,
    Mixing,
    Subject,
    attending,
    attention_layers,
    effects,
    heads,
)
from torch import Tensor, nn
from torch.nn import functional as F

import gandissect
from gandissect.adapter import Networks
from gandissect.blocks import Section
from gandissect.gan import LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.testing import check_analyzer

SIDE = 4
PLACES = SIDE * SIDE
UNITS = 40
HERE = [(0.9, 0.9)]


def planted(*looks: str, batch_first: bool = True) -> nn.MultiheadAttention:
    """Heads of 20 units over tokens of 3 colours, ones, 16 units that tell the place, and 20 of noise."""
    attention = nn.MultiheadAttention(UNITS, 2, batch_first=batch_first)
    each = UNITS // 2
    with torch.no_grad():
        query, key, value = attention.in_proj_weight.zero_().chunk(3)
        for head, look in enumerate(looks):
            place = slice(head * each, head * each + PLACES)
            colour = slice(head * each, head * each + 3)
            if look == "left":
                left = torch.tensor([k - (k % SIDE > 0) for k in range(PLACES)])
                query[place, 4 : 4 + PLACES] = 100 * torch.eye(PLACES)[left].T
                key[place, 4 : 4 + PLACES] = torch.eye(PLACES)
            elif look == "colour":
                query[colour, :3] = key[colour, :3] = 4 * torch.eye(3)
            elif look == "random":
                query[head * each : (head + 1) * each].normal_(0, 0.3)
                key[head * each : (head + 1) * each].normal_(0, 0.3)
            value[colour, :3] = torch.eye(3)
        attention.out_proj.weight.zero_()
        for head in range(2):
            attention.out_proj.weight[:3, head * each : head * each + 3] = -0.5 * torch.eye(3)
    return attention


class Painter(nn.Module):
    """Latent [N, 16] to [N, 3, 16, 16]: a token for each place, black or white by the latent's sign, through ``attn``."""

    def __init__(self, attn: nn.MultiheadAttention, *, class_token: bool = False, weights: bool = False) -> None:
        super().__init__()
        self.attn, self.class_token, self.weights = attn, class_token, weights
        places = torch.cat([torch.ones(PLACES, 1), torch.eye(PLACES)], 1)
        noise = torch.randn(PLACES, UNITS - 4 - PLACES, generator=torch.Generator().manual_seed(0))
        self.register_buffer("fixed", torch.cat([places, noise], 1)[None])

    def forward(self, z: Tensor) -> Tensor:
        sign = torch.tanh(20 * z)[..., None]
        x = torch.cat([sign, -sign, sign, self.get_buffer("fixed").expand(z.shape[0], -1, -1)], 2)
        if self.class_token:
            x = torch.cat([torch.zeros_like(x[:, :1]), x], 1)
        given = x if self.attn.batch_first else x.transpose(0, 1)
        mixed, _ = self.attn(given, given, given, need_weights=self.weights)
        x = x + (mixed if self.attn.batch_first else mixed.transpose(0, 1))
        colours = x[:, int(self.class_token) :, :3].transpose(1, 2).reshape(-1, 3, SIDE, SIDE)
        image: Tensor = F.interpolate(torch.tanh(0.6 * colours), scale_factor=4.0)
        return image


def session_of(net: nn.Module, *, n: int = 32, batch_size: int = 64) -> Session:
    networks = Networks(net.eval(), None, LatentSpace("z", (PLACES,)))
    gan = build_gan(networks, name="planted", opening=Opening("testing", "made for tests"))
    return Session(gan, n=n, batch_size=batch_size)


def layer_of(net: nn.Module) -> tuple[Subject, AttentionLayer]:
    subject = Subject.of(session_of(net), "generator", 32)
    (layer,), refused = attention_layers(subject, HERE)
    assert not refused
    return subject, layer


def refused_of(net: nn.Module) -> dict[str, str]:
    layers, refused = attention_layers(Subject.of(session_of(net), "generator", 32), HERE)
    assert not layers
    return refused


def section_of(session: Session, **options: object) -> Section:
    analyzer = Attention(options)
    session.prepare(analyzer.wants(session))
    (section,) = analyzer.run(session)
    return section


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_head_at_the_left_neighbour_is_told_from_one_at_nothing(batch_first: bool, weights: bool) -> None:
    _, layer = layer_of(Painter(planted("left", "nothing", batch_first=batch_first), weights=weights))
    assert (layer.name, layer.heads, layer.queries, layer.reproduced) == ("attn", 2, (SIDE, SIDE), True)
    left, nothing = heads(layer)
    assert (left.step, left.share) == ((0, -1), pytest.approx(0.75))
    assert left.distance == pytest.approx(0.75 / SIDE / 2**0.5)
    assert left.entropy < 0.001
    assert nothing.entropy == pytest.approx(1.0)
    assert nothing.share == pytest.approx(1 / PLACES)
    corner = layer.maps[0, 0].flatten()
    assert float(corner[PLACES - 2]) == pytest.approx(0.5 + 0.5 / PLACES, abs=1e-3)


def test_the_report_names_the_step_of_each_head() -> None:
    told = str(section_of(session_of(Painter(planted("left", "nothing")))).to_json())
    assert "1 left" in told
    assert "most often at" in told


def test_a_class_token_is_set_apart_from_the_places() -> None:
    _, layer = layer_of(Painter(planted("left", "nothing"), class_token=True))
    assert layer.places.skipped == (1, 1)
    assert layer.reproduced
    assert heads(layer)[0].step == (0, -1)
    assert layer.aside == pytest.approx(0.5 / (PLACES + 1), abs=1e-3)
    section = section_of(session_of(Painter(planted("left", "nothing"), class_token=True)))
    assert "is taken for a class token" in str(section.to_json())


def test_heads_at_their_own_colour_follow_content_and_are_a_finding() -> None:
    section = section_of(session_of(Painter(planted("colour", "colour"))))
    assert [finding.text[:50] for finding in section.findings] == ["Attention `attn` of the generator follows content:"]


@pytest.mark.parametrize("seed", range(4))
def test_random_heads_are_no_finding(seed: int) -> None:
    torch.manual_seed(seed)
    section = section_of(session_of(Painter(planted("random", "random"), class_token=seed % 2 == 0), n=16))
    assert section.status == "done"
    assert not section.findings


def test_values_are_removed_by_the_places_of_the_tokens() -> None:
    subject, layer = layer_of(Painter(planted("left", "left"), class_token=True))
    found = effects(subject, layer, subject.session.rng("test"))
    assert 0 < found.random < found.top < found.branch
    removed, _ = subject.run(lambda _rows, mixing: 0 * mixing.values)
    own, _ = subject.run()
    assert found.branch * _apart(own) == pytest.approx(
        float((removed - own).square().mean((1, 2, 3)).sqrt().mean()), rel=1e-4
    )


def _apart(images: Tensor) -> float:
    return float((images - images.roll(1, 0)).square().mean((1, 2, 3)).sqrt().mean())


class Restless(nn.MultiheadAttention):
    """Gives something else each time."""

    passes = 0

    def forward(self, *args: Tensor, **named: bool) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        mixed, weights = super().forward(*args, **named)
        self.passes += 1
        return mixed + 0.1 * self.passes, weights


def test_a_layer_that_cannot_be_made_again_is_not_shown() -> None:
    section = section_of(session_of(Painter(Restless(UNITS, 2, batch_first=True))))
    assert section.status == "partly"
    assert "its output does not follow from the map" in str(section.to_json())
    assert not section.findings


class Asking(nn.Module):
    """A row of learned queries asks the places: cross-attention."""

    def __init__(self, queries: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, queries, 8))

    def forward(self, z: Tensor) -> Tensor:
        places = z[..., None] * torch.linspace(-1, 1, 6)
        mixed, _ = self.attn(self.queries.expand(len(z), -1, -1), key=places, value=places[..., :5])
        tall = mixed.mean(2)[:, :4].reshape(-1, 1, 2, 2).expand(-1, 3, -1, -1)
        image: Tensor = torch.tanh(F.interpolate(tall, scale_factor=8.0))
        return image


def test_queries_without_places_are_left_out_with_their_entropy() -> None:
    torch.manual_seed(0)
    net = Asking(7)
    (why,) = refused_of(net).values()
    assert why.startswith("7 queries and 16 keys are no grids of places in 16×16 pixels (2 heads, entropy ")
    section = section_of(session_of(net))
    assert section.status == "skipped"
    assert why in section.summary


def test_cross_attention_between_grids_has_no_steps() -> None:
    _, layer = layer_of(Asking(4))
    assert (layer.queries, layer.keys, layer.reproduced) == ((2, 2), (4, 4), True)
    assert [head.step for head in heads(layer)] == [None, None]


class Windows(nn.Module):
    """Places attend within four windows of four."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        x = (z[..., None] * torch.linspace(-1, 1, 4)).reshape(-1, 4, 4)
        mixed, _ = self.attn(x, x, x)
        image: Tensor = torch.tanh(F.interpolate(mixed.reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1), scale_factor=2.0))
        return image


def test_windows_are_not_taken_for_the_whole_picture() -> None:
    (why,) = refused_of(Windows()).values()
    assert why.startswith("attends within each of 4 groups of 4 tokens, so their places are unknown (2 heads, entropy ")


class Mistaken(Windows):
    """The samples stand where the tokens should, and nine tokens for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(4, 2, batch_first=False)

    def forward(self, z: Tensor) -> Tensor:
        x = (z[:, :9, None] * torch.linspace(-1, 1, 4)).contiguous()
        mixed, _ = self.attn(x, x, x)
        image: Tensor = torch.tanh(F.interpolate(mixed[..., :3].mT.reshape(-1, 3, 3, 3), size=16))
        return image


def test_a_batch_that_is_not_the_samples_is_said() -> None:
    assert refused_of(Mistaken()) == {
        "attn": "what it takes for its batch are not the samples (batch first or second?)"
    }


def seen_of(net: nn.Module, *given: Tensor, **named: object) -> tuple[Mixing, Tensor]:
    """The only attention of a multi-head attention that is called so, and its output with all weights doubled."""
    seen: list[Mixing] = []

    def look(mixing: Mixing) -> Tensor:
        seen.append(mixing)
        return 2 * (mixing.weights @ mixing.values)

    with attending(net, look, batch=3), torch.no_grad():
        doubled = net(*given, **named)[0]
    (mixing,) = seen
    return mixing, doubled


MASKS: dict[str, dict[str, object]] = {
    "none": {},
    "bool": {"attn_mask": torch.eye(5, dtype=torch.bool)},
    "float": {"attn_mask": torch.randn(5, 5, generator=torch.Generator().manual_seed(1))},
    "padding": {"key_padding_mask": torch.tensor([[False] * 4 + [True]] * 3)},
    "causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1), "is_causal": True},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", [{}, {"bias": False}, {"add_bias_kv": True, "add_zero_attn": True}])
def test_every_head_is_read_as_torch_gives_it(mask: str, kind: dict[str, bool]) -> None:
    torch.manual_seed(0)
    net = nn.MultiheadAttention(8, 2, batch_first=True, **kind).eval()
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        own, _ = net(x, x, x, **MASKS[mask])
        truth = net(x, x, x, **{**MASKS[mask], "need_weights": True}, average_attn_weights=False)[1]
    mixing, doubled = seen_of(net, x, x, x, **MASKS[mask])
    assert mixing.extra == 2 * ("add_bias_kv" in kind)
    torch.testing.assert_close(mixing.weights, truth)
    torch.testing.assert_close(mixing.again().transpose(0, 1), own)
    bias = net.out_proj.bias if net.out_proj.bias is not None else 0
    torch.testing.assert_close(doubled - bias, 2 * (own - bias))


def test_a_causal_hint_beside_added_keys_is_found_out() -> None:
    """Torch forbids the added keys with the hint alone, and allows them where weights are asked for."""
    torch.manual_seed(0)
    net, x = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True).eval(), torch.randn(3, 5, 8)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    mixing, _ = seen_of(net, x, x, x, attn_mask=causal, is_causal=True, need_weights=False)
    assert float((mixing.again() - mixing.own).detach().abs().max()) > 0.01


@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_with_shared_or_causal_keys_is_read(causal: bool) -> None:
    class Fused(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, k, is_causal=causal, enable_gqa=True)

    torch.manual_seed(0)
    mixing, doubled = seen_of(Fused(), torch.randn(3, 4, 5, 2), torch.randn(3, 2, 5, 2))
    assert mixing.weights.shape == (3, 4, 5, 5)
    torch.testing.assert_close(mixing.again(), mixing.own)
    torch.testing.assert_close(doubled, 2 * mixing.own[0])


class Encoder(nn.Module):
    """Two layers of nn.TransformerEncoder, which torch runs as one call where nobody looks."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.embed = nn.Parameter(torch.randn(1, PLACES, 8))

    def forward(self, z: Tensor) -> Tensor:
        x = self.body(self.embed + z[..., None])
        image: Tensor = torch.tanh(
            F.interpolate(x[..., :3].transpose(1, 2).reshape(-1, 3, SIDE, SIDE), scale_factor=4.0)
        )
        return image


def test_layers_of_a_transformer_encoder_are_read_through_its_fast_path() -> None:
    torch.manual_seed(0)
    layers, refused = attention_layers(Subject.of(session_of(Encoder()), "generator", 32), HERE)
    assert not refused
    assert [layer.name for layer in layers] == ["body.layers.0.self_attn", "body.layers.1.self_attn"]
    assert all(layer.reproduced for layer in layers)


def test_heads_do_not_depend_on_the_batch_size() -> None:
    net = Painter(planted("left", "random"), class_token=True)
    told = [section_of(session_of(net, n=20, batch_size=size)).to_json() for size in (1, 7, 64)]
    assert all(first == second for first, second in pairwise(told))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_the_analyzer_keeps_what_every_analyzer_promises() -> None:
    check_analyzer(Attention)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["script", pytest.param("export", marks=pytest.mark.slow)])
def test_heads_are_read_from_files_that_hide_their_modules(kind: str, tmp_path: Path) -> None:
    net, z = Painter(planted("left", "nothing"), weights=True).eval(), torch.randn(16, PLACES)
    file = tmp_path / ("net.ts" if kind == "script" else "net.pt2")
    if kind == "script":
        torch.jit.trace(net, z, check_trace=False).save(file)
    else:
        torch.export.save(torch.export.export(net, (z,)), file)
    session = Session(gandissect.open(file, latent=(PLACES,), device="cpu"), n=16)
    (layer,), _ = attention_layers(Subject.of(session, "generator", 16), HERE)
    assert layer.reproduced
    assert heads(layer)[0].step == (0, -1)
