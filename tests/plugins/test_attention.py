"""Planted attention: at one corner, at one's own colour, behind a gate of 0; every way of writing it is read alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
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
    follows,
    locality,
    same_colour,
    same_concept,
)
from torch import Tensor, nn
from torch.nn import functional as F

import gandissect
from gandissect.adapter import Networks
from gandissect.blocks import Section
from gandissect.concepts import CallableSegmenter, Concept, Vocabulary
from gandissect.errors import UsageError
from gandissect.gan import LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.tap import tap
from gandissect.testing import tiny_gan

GRID = 8
UNITS = 24
HERE = [(0.9, 0.9)]


class Block(nn.Module):
    """Self-attention over [N, 24, 8, 8]: three colours, ones, a 1 in the upper left corner, and maps of noise, always the same."""

    def __init__(self, looks_at: str, gamma: float = 0.5) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(UNITS, 3, 1, bias=False), nn.Conv2d(UNITS, 3, 1, bias=False)
        self.value = nn.Conv2d(UNITS, UNITS, 1, bias=False)
        self.gamma = nn.Parameter(torch.tensor(gamma))
        with torch.no_grad():
            for part in (self.query, self.key, self.value):
                part.weight.zero_()
            self.value.weight[:3, :3, 0, 0] = -torch.eye(3)
            if looks_at == "corner":
                self.query.weight[0, 3], self.key.weight[0, 4] = 3.0, 3.0
            elif looks_at == "colour":
                self.query.weight[:, :3, 0, 0] = self.key.weight[:, :3, 0, 0] = 2 * torch.eye(3)
            else:
                self.query.weight.normal_()
                self.key.weight.normal_()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ key).softmax(2)
        out: Tensor = x + self.gamma * (value @ weights.transpose(1, 2)).reshape(x.shape)
        return out


class Painter(nn.Module):
    """Latent [N, 16] to [N, 3, 32, 32]: 2×2 patches of two colours, by the latent's signs, through ``attn``."""

    def __init__(self, attn: nn.Module) -> None:
        super().__init__()
        self.attn = attn
        corner = torch.zeros(1, 1, GRID, GRID)
        corner[..., 0, 0] = 1.0
        noise = 0.3 * torch.randn(1, UNITS - 5, GRID, GRID, generator=torch.Generator().manual_seed(0))
        self.register_buffer("fixed", torch.cat([torch.ones_like(corner), corner, noise], 1))
        self.scale = nn.Parameter(torch.tensor(0.6))

    def forward(self, z: Tensor) -> Tensor:
        sign = torch.tanh(20 * z).reshape(-1, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        colours = torch.cat([sign, -sign, sign], 1)
        x = self.attn(torch.cat([colours, self.get_buffer("fixed").expand(z.shape[0], -1, -1, -1)], 1))
        image: Tensor = F.interpolate(torch.tanh(self.scale * x[:, :3]), scale_factor=4.0)
        return image


def session_of(attn: nn.Module, *, n: int = 32, batch_size: int = 64) -> Session:
    networks = Networks(Painter(attn).eval(), None, LatentSpace("z", (16,)))
    gan = build_gan(networks, name="planted", opening=Opening("testing", "made for tests"))
    return Session(gan, n=n, batch_size=batch_size)


def layer_of(session: Session, points: Sequence[tuple[float, float]] = HERE) -> tuple[Subject, AttentionLayer]:
    subject = Subject.of(session, "generator", session.n)
    (layer,), refused = attention_layers(subject, points)
    assert not refused
    return subject, layer


def sections_of(session: Session, **options: object) -> list[Section]:
    analyzer = Attention(options)
    session.prepare(analyzer.wants(session))
    return list(analyzer.run(session))


def test_an_attention_at_a_corner_is_mapped_there_and_follows_no_content() -> None:
    subject, layer = layer_of(session_of(Block("corner")))
    assert layer.maps.shape == (32, 1 + 64, GRID, GRID)
    assert float(layer.maps[:, 0, 0, 0].min()) > 0.99
    assert layer.entropy < 0.05
    assert layer.gates == {"gamma": 0.5}
    rng = np.random.default_rng(0)
    assert follows(layer.rows[:, 1:], same_colour(layer, subject.images), rng).p > 0.05
    near = locality(layer)
    assert near.distance > near.shuffled
    assert near.p < 0.01


def test_an_attention_at_its_own_colour_follows_content_and_is_a_finding() -> None:
    session = session_of(Block("colour"))
    subject, layer = layer_of(session)
    found = follows(layer.rows[:, 1:], same_colour(layer, subject.images), np.random.default_rng(0))
    assert found.own > 0.4
    assert abs(found.others - 0.25) < 0.05
    assert found.p == 0.001
    (section,) = sections_of(session)
    assert section.findings[0].text.startswith("Attention `attn` of the generator follows content")


def test_what_is_attended_matters_more_than_random_places() -> None:
    subject, layer = layer_of(session_of(Block("corner")))
    found = effects(subject, layer, np.random.default_rng(0))
    assert found.top == pytest.approx(found.branch, rel=0.05)
    assert found.random < 0.5 * found.top
    assert found.gap.clear


def test_a_layer_behind_a_gate_of_0_is_said_to_do_nothing() -> None:
    (section,) = sections_of(session_of(Block("colour", gamma=0.0)))
    assert len(section.findings) == 1
    assert "does nothing** (`gamma` = 0)" in section.findings[0].text
    assert "No attention layer" in section.summary


def test_random_attention_follows_content_in_no_more_networks_than_chance_allows() -> None:
    said = 0
    for seed in range(8):
        torch.manual_seed(seed)
        said += sum(len(section.findings) for section in sections_of(session_of(Block("random"), n=16)))
    assert said <= 1


class Noisy(Block):
    """Gives something else each time: nothing can be recomputed."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(int(torch.tensor(self.passes))))
        self.passes += 1
        out: Tensor = super().forward(x) + noise
        return out

    passes = 0


def test_a_layer_whose_output_does_not_follow_from_its_map_is_not_shown() -> None:
    (section,) = sections_of(session_of(Noisy("corner")))
    assert [block.kind for block in section.blocks] == ["text"]
    assert section.status == "partly"
    assert "could not be reproduced" in section.summary
    assert not section.findings


def by_matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.matmul(torch.softmax(q @ k.mT, -1), v)


def by_bmm_from_the_right(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(v.mT, F.softmax(torch.bmm(q, k.mT), dim=-1).permute(0, 2, 1)).mT


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("nqk,nkc->nqc", torch.einsum("nqc,nkc->nqk", q, k).softmax(2), v)


def by_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


def by_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (part[:, None].repeat(1, 2, 1, 1).flatten(0, 1) for part in (q, k, v))
    return ((q @ k.mT).softmax(-1) @ v)[::2]


@pytest.mark.parametrize("write", [by_matmul, by_bmm_from_the_right, by_einsum, by_fused, by_heads])
def test_every_way_of_writing_attention_is_read_and_can_be_replaced(
    write: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return write(x[..., :2], x[..., 2:4], x[..., 4:])

    x = torch.randn(3, 6, 8)
    truth = torch.softmax(x[..., :2] @ x[..., 2:4].mT, -1)
    seen: list[Mixing] = []

    def look(mixing: Mixing) -> Tensor:
        seen.append(mixing)
        return 2 * (mixing.weights @ mixing.values)

    net = Net()
    with attending(net, look), torch.no_grad():
        changed = net(x)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0].weights, truth[:, None].expand_as(seen[0].weights))
    torch.testing.assert_close(changed, 2 * (truth @ x[..., 4:]))
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


def test_a_softmax_that_mixes_no_values_is_no_attention() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x * (x @ x.mT).softmax(-1).sum(-1, keepdim=True)
            return out

    seen: list[Mixing] = []
    net = Gate()
    with attending(net, seen.append):
        net(torch.randn(2, 4, 4))
    assert not seen


def test_content_is_found_only_where_regions_of_the_same_sample_hold_more() -> None:
    torch.manual_seed(0)
    regions = (torch.rand(24, 8, 16) > 0.6).float()
    aware = regions + 0.3
    blind = torch.rand(1, 8, 16).expand(24, -1, -1) + 0.1
    rng = np.random.default_rng(0)
    ps = [follows(rows / rows.sum(2, keepdim=True), regions, rng).p for rows in (aware, blind)]
    assert ps[0] == 0.001
    assert ps[1] > 0.05


def test_places_alone_are_rarely_taken_for_content() -> None:
    rng, small = np.random.default_rng(0), 0
    for seed in range(100):
        torch.manual_seed(seed)
        rows = torch.rand(12, 6, 9).softmax(2)
        small += follows(rows, (torch.rand(12, 6, 9) > 0.5).float(), rng, 99).p <= 0.05
    assert small <= 11


def test_a_query_belongs_to_the_smallest_thing_that_holds_it() -> None:
    subject, layer = layer_of(session_of(Block("corner"), n=4))
    large, small = torch.ones(4, 32, 32, dtype=torch.bool), torch.zeros(4, 32, 32, dtype=torch.bool)
    small[:, :16, :16] = True
    concepts = [Concept("wall", "scene"), Concept("window", "scene"), Concept("red", "colour")]
    region = same_concept(layer, torch.stack([large, small, large], 1), concepts)
    assert region is not None
    assert region[0, 0].sum() == 16
    assert region[0, -1].sum() == 64
    assert same_concept(layer, torch.stack([large], 1), concepts[2:]) is None
    assert subject.images.shape == (4, 3, 32, 32)


def test_things_of_a_vocabulary_are_regions_beside_colour() -> None:
    session = session_of(Block("colour"))
    left = CallableSegmenter(lambda images: images[:, :1] > 0, ["patch"])
    table = sections_of(Session(session.gan, n=16, vocabulary=Vocabulary([left])))[0].to_json()
    assert "thing" in str(table)


def test_the_map_of_a_rebuilt_sagan_is_what_its_softmax_gave(shared: Path) -> None:
    folder = shared / "golden" / "families" / "mimicry_sagan_32"
    if not folder.is_dir():
        pytest.skip("golden/families/mimicry_sagan_32 is not in the shared folder")
    gan = gandissect.open(folder / "netG.pth", discriminator=folder / "netD.pth", device="cpu")
    session = Session(gan, n=16)
    subject, layer = layer_of(session)
    with session.borrowed(), torch.no_grad(), tap(gan.generator.module, ["attn_block.softmax"]) as acts:
        gan.generator(subject.given, subject.labels)
    truth = acts["attn_block.softmax"][:, layer.points]
    torch.testing.assert_close(layer.rows, truth, atol=1e-5, rtol=0)
    assert (layer.queries, layer.keys, layer.reproduced) == ((16, 16), (8, 8), True)
    (judged,), _ = attention_layers(Subject.of(session, "discriminator", 16), HERE)
    assert (judged.name, judged.queries, judged.keys, judged.reproduced) == ("attn_block", (8, 8), (4, 4), True)


@pytest.mark.parametrize("kind", ["script", "export"])
def test_attention_is_read_from_files_that_hide_their_modules(kind: str, tmp_path: Path) -> None:
    net, z, file = Painter(Block("corner")).eval(), torch.randn(16, 16), tmp_path / "net.pt2"
    if kind == "script":
        torch.jit.trace(net, z).save(tmp_path / "net.ts")
        file = tmp_path / "net.ts"
    else:
        torch.export.save(torch.export.export(net, (z,)), file)
    session = Session(gandissect.open(file, latent=(16,), device="cpu"), n=16)
    _, layer = layer_of(session)
    assert layer.reproduced
    assert float(layer.maps[:, 0, 0, 0].min()) > 0.99


def test_a_network_without_attention_is_skipped_with_what_was_looked_for() -> None:
    (section,) = sections_of(Session(tiny_gan("random"), n=16))
    assert section.status == "skipped"
    assert "no attention over places was seen" in section.summary


def test_a_place_that_is_none_is_refused_with_an_example() -> None:
    with pytest.raises(UsageError, match=r"expected row:column.*0\.5:0\.25"):
        sections_of(session_of(Block("corner"), n=4), queries=("2:0",))


def test_a_uniform_attention_is_said_to_add_one_mean() -> None:
    block = Block("corner")
    nn.init.zeros_(block.query.weight)
    (section,) = sections_of(session_of(block, n=8))
    assert "At `attn` attention is uniform" in section.summary
    assert not section.findings


def test_maps_do_not_depend_on_the_batch_size_and_leave_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    block = Block("random")
    before = [parameter.clone() for parameter in block.parameters()]
    told = [[one.to_json() for one in sections_of(session_of(block, n=20, batch_size=size))] for size in (7, 64)]
    assert told[0] == told[1]
    assert all(torch.equal(a, b) for a, b in zip(before, block.parameters(), strict=True))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in block.modules())
