"""A report with every kind of block, made of synthetic pictures, for the tests of the renderers.

python tests/reports/sample_report.py sample.html      # writes it, to look at
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from sample_pictures import blobs, lit, scenes

from gandissect.blocks import (
    UNCHECKED,
    Bar,
    Bar1,
    Block,
    Card,
    Code,
    Compare,
    Data,
    Finding,
    Fold,
    Gallery,
    Graph,
    Guide,
    Heatmap,
    Histogram,
    Html,
    Image,
    ImageGrid,
    Line,
    Multiples,
    Node,
    Overlay,
    Reference,
    Scatter,
    Section,
    Series,
    Strip,
    Table,
    Tabs,
    Text,
    Trust,
)
from gandissect.report import Provenance, Report

CHECKED = Trust(
    "p < 0.001 · FDR 5 %", "the IoU of each unit against that of 200 random masks of the same area; 480 tests"
)
WEAK = Trust(
    "held-out 0.58 ± 0.06", "the same measure on 500 samples that were not used to choose the direction", "weak"
)
CONCEPTS = ("tree", "sky", "door", "grass", "window", "roof", "cloud", "road")


def cards(count: int, pictures: int = 8) -> tuple[Card, ...]:
    """Unit cards."""
    draw = np.random.default_rng(5)
    images = scenes(40, seed=9)
    out = []
    for unit in range(count):
        concept, iou, effect = CONCEPTS[unit % len(CONCEPTS)], float(draw.beta(2, 6)), float(draw.beta(2, 3))
        out.append(
            Card(
                f"layer{1 + unit % 3}/unit-{unit}",
                f"layer{1 + unit % 3} · {unit}",
                lit(images[draw.permutation(40)[:pictures]], unit),
                label=concept,
                bars=(Bar1("IoU", iou, mark=0.12, mark_label="95 % of chance"), Bar1("causal effect", effect)),
                facts=(("threshold", "2.31"), ("active on", "1.0 % of pixels"), ("second concept", "sky, IoU 0.04")),
                sort={"IoU": iou, "effect": effect, "unit": float(-unit)},
                facets={"layer": f"layer{1 + unit % 3}", "concept": concept},
                trust=CHECKED if iou > 0.12 else WEAK,
                image_labels=tuple(f"sample {17 * k + unit}, activation {3.2 - 0.1 * k:.1f}" for k in range(pictures)),
            )
        )
    return tuple(out)


def layer_graph(depth: int = 22) -> Graph:
    """A chain with shortcuts, as in a residual generator."""
    kinds = ("ConvTranspose2d", "BatchNorm2d", "ReLU")
    nodes = [Node("z", "latent", "100")]
    nodes += [
        Node(
            f"main.{i}",
            kinds[i % 3],
            f"{512 >> (i // 6)}×{4 << (i // 6)}×{4 << (i // 6)}",
            ("tree, sky",) if i % 5 == 3 else (),
            i == 9,
        )
        for i in range(depth)
    ]
    nodes.append(Node("output", "Tanh", "3×64×64"))
    names = [node.name for node in nodes]
    edges = list(pairwise(names))
    edges += [
        ("z", "main.6"),
        ("z", "main.12"),
        ("z", "main.18"),
        ("main.2", "main.5"),
        ("main.8", "main.11"),
        ("main.14", "main.17"),
    ]
    return Graph(
        tuple(nodes), tuple(edges), "the generator: a chain of 24 layers with six shortcuts", "Layers of the generator."
    )


def branching_graph() -> Graph:
    """A mapping network that feeds blocks, each with an output of its own."""
    nodes = [Node("z", "latent", "512"), Node("mapping", "MLP ×8", "512")]
    edges = [("z", "mapping")]
    for i, size in enumerate((4, 8, 16, 32)):
        nodes += [
            Node(f"b{size}.conv", "modulated conv", f"512×{size}×{size}", ("sky",) if i == 2 else ()),
            Node(f"b{size}.torgb", "1×1 conv", f"3×{size}×{size}"),
        ]
        edges += [("mapping", f"b{size}.conv"), (f"b{size}.conv", f"b{size}.torgb")]
        if i:
            edges += [(f"b{size // 2}.conv", f"b{size}.conv"), (f"b{size // 2}.torgb", f"b{size}.torgb")]
    return Graph(tuple(nodes), tuple(edges), "the mapping network and four blocks", "Blocks and their outputs.")


def every_block() -> list[Block]:
    """One or more of each kind of block."""
    return [*picture_blocks(), *number_blocks(), *unit_blocks(), *word_blocks()]


def picture_blocks() -> list[Block]:
    """Blocks that are pictures."""
    images = scenes(24)
    frames = np.stack(
        [np.clip(scenes(3, seed=4).astype(int) + 18 * (f - 3), 0, 255).astype(np.uint8) for f in range(7)]
    )
    maps = blobs(8)
    maps[6], maps[7] = 0.25, np.nan
    return [
        ImageGrid(
            images[:16],
            "sixteen samples",
            labels=tuple(f"sample {i}" for i in range(16)),
            caption="Samples 0 to 15, seed 0.",
        ),
        ImageGrid(
            scenes(12, 32),
            "classes by samples",
            columns=6,
            row_labels=("class 3", "class 7"),
            column_labels=tuple("012345"),
        ),
        Image(scenes(1, 256, seed=2)[0], "the mean sample", "The *mean* over 1000 samples."),
        Overlay(
            images[:8],
            maps,
            "evidence of the discriminator",
            labels=tuple(f"sample {i}" for i in range(8)),
            unit="logit per pixel",
            caption="Orange speaks for real, blue against it.",
        ),
        Overlay(
            images[:4],
            -np.abs(blobs(4)),
            "maps without positive evidence",
            signed=False,
            shared_scale=True,
            unit="activation",
        ),
        Gallery(
            cards(30),
            "thirty units of three layers",
            "Units by concept; the mark on the bar is the 95 % point of chance.",
        ),
        Strip(
            frames,
            tuple(float(v) for v in range(-3, 4)),
            "Direction 1 of layer2",
            "three samples from dark to light",
            origin=3,
            facts=(("effect on brightness", "+0.31 (CI 0.28–0.34)"), ("side effect, LPIPS", "0.07")),
            trust=CHECKED,
        ),
        Compare(
            images[:8],
            lit(images[:8], 3),
            "samples with and without the tree units",
            "unedited",
            "without tree units",
            tuple(f"sample {i}" for i in range(8)),
            "Ablation of 12 units of `layer2`.",
        ),
    ]


def number_blocks() -> list[Block]:
    """Blocks that are numbers."""
    draw = np.random.default_rng(3)
    effects = draw.normal(0, 1, 8).tolist()
    steps = list(range(1, 11))
    rise = [1 - 0.9 * 0.75**i for i in steps]
    matrix = np.clip(draw.gamma(0.6, 0.09, (90, 24)), 0, 1)
    matrix[4, 5] = np.nan
    small = draw.normal(0, 0.4, (6, 8))
    points, groups = draw.normal(0, 1, (400, 2)), ("real",) * 200 + ("generated",) * 200
    points[200:] += (1.4, 0.6)
    return [
        Heatmap(
            small,
            tuple(f"direction {i}" for i in range(6)),
            CONCEPTS,
            "effect of directions on concepts",
            signed=True,
            unit="change of area",
            caption="Effects.",
        ),
        Heatmap(
            matrix,
            tuple(f"layer{1 + u % 3} · {u}" for u in range(90)),
            tuple(f"{CONCEPTS[c % 8]} {c // 8}" for c in range(24)),
            "IoU of units and concepts",
            unit="IoU",
            row_links=tuple(f"layer{1 + u % 3}/unit-{u}" if u < 30 else "" for u in range(90)),
        ),
        Line(
            (
                Series("real", steps, rise, [v - 0.03 for v in rise], [v + 0.03 for v in rise], "real"),
                Series("generated", steps, [0.8 * v for v in rise], role="generated"),
                Series("chance", steps, [0.5] * 10, role="null"),
            ),
            "layer of the discriminator",
            "held-out accuracy",
            "accuracy rises with depth",
            "Linear probes; bands are 95 % intervals over five folds.",
        ),
        Bar(
            (
                Series("IoU", CONCEPTS, draw.random(8).tolist()),
                Series("chance", CONCEPTS, (draw.random(8) * 0.2).tolist(), role="null"),
            ),
            "concept",
            "largest IoU",
            "IoU of the best unit for each concept",
        ),
        Bar(
            (Series("ablation", CONCEPTS, effects, [v - 0.6 for v in effects], [v + 0.6 for v in effects]),),
            "concept",
            "change of area (%)",
            "effects",
            horizontal=True,
            caption="Whiskers: 95 % intervals.",
        ),
        Histogram(
            {"real": draw.normal(1, 1, 900).tolist(), "generated": draw.normal(-0.5, 1.3, 900).tolist()},
            "logit",
            "scores of real and generated pictures",
            caption="Scores of the discriminator.",
        ),
        Scatter(
            points,
            ("PC 1, 23 % of variance", "PC 2, 9 % of variance"),
            "real and generated pictures",
            groups,
            thumbnails=scenes(400, 24),
            labels=tuple(f"sample {i}" for i in range(400)),
            colourings={"logit": draw.normal(0, 1, 400).tolist()},
            caption="Features of the last layer.",
        ),
        Scatter(
            draw.normal(0, 1, (300, 3)),
            ("PC 1, 23 %", "PC 2, 9 %", "PC 3, 4 %"),
            "samples in three components",
            values=draw.normal(0, 1, 300),
            value_label="logit",
        ),
        Table(
            ("layer", "units", "with a concept", "largest IoU", "checked"),
            [(f"layer{i}", 2 ** (9 - i), 10 * i, 0.0123456 * 4**i, i > 1) for i in range(1, 5)],
            "Units with a concept by layer.",
        ),
        layer_graph(),
        branching_graph(),
    ]


def unit_blocks() -> list[Block]:
    """Blocks that lead to the cards of the gallery."""
    draw = np.random.default_rng(11)
    units = [f"layer{1 + u % 3}/unit-{u}" for u in range(30)]
    points = draw.normal(0, 0.3, (40, 2)) + np.array([[u % 8, (u % 8) % 3] for u in range(40)])
    map_of_units = Scatter(
        points,
        ("UMAP 1", "UMAP 2"),
        "forty units, thirty of them found",
        groups=tuple(CONCEPTS[u % 8] if u < 30 else "not found" for u in range(40)),
        labels=tuple(f"unit {u}" for u in range(40)),
        links=(*units, *[""] * 10),
        shapes=tuple(f"layer{1 + u % 3}" for u in range(40)),
        muted="not found",
        named=CONCEPTS,
    )
    rule = Scatter(
        np.abs(points) / 40,
        ("IoU by chance", "IoU"),
        "IoU against chance",
        groups=tuple("found" if u < 30 else "not found" for u in range(40)),
        links=(*units, *[""] * 10),
        guides=(Guide((0, 0), (0.2, 0.2), "IoU = chance"), Guide((0, 0.04), (0.2, 0.04), "IoU 0.04")),
    )
    counts = draw.poisson(2.0, (5, 8)).astype(float)
    counts_per_layer = Multiples(
        tuple(f"layer{i}" for i in range(1, 6)),
        CONCEPTS,
        tuple("thing" if k < 5 else "stuff" for k in range(8)),
        counts,
        np.full((5, 8), 0.4),
        np.full((5, 8), 1.0),
        "units",
        "by chance",
        "units per concept in five layers",
    )
    return [Tabs(("UMAP", "IoU"), (map_of_units, rule)), counts_per_layer]


def word_blocks() -> list[Block]:
    """Blocks that are words."""
    return [
        Text(
            "A unit **draws** a concept when *removing* it removes the concept.\n\n"
            "- first `layer4`\n- then the rest\n\n1. measure\n2. compare"
        ),
        Fold(
            "How the threshold was chosen",
            (Text("By the 99 % quantile of the unit's activation."), Table(("layer", "quantile"), [("layer1", 0.99)])),
        ),
        Code("gandissect analyze gan.pt -a dissection --seed 0", "console"),
        Data("raw-scores", {"scores": [1, 2.5, None]}),
        Html(
            "<p style='font:16px sans-serif'>A plugin's own <b>words</b>.</p><script>alert(1)</script>",
            "a plugin's figure",
        ),
    ]


def provenance() -> Provenance:
    """Where the sample report comes from."""
    return Provenance(
        command="gandissect analyze dcgan.pt -a dissection,directions -n 1000 --seed 0 -o dcgan.html",
        checkpoint="dcgan.pt",
        size=14_329_216,
        sha256="9f2c" * 16,
        opened_by="dcgan",
        why="0.95: has main.0.weight of shape 100×512×4×4",
        alternatives=("module (0.30)",),
        assumptions=(
            ("activation", "relu", "lowest mismatch of three", True),
            ("prior", "normal", "most common", False),
        ),
        verification="architecture verified (BatchNorm mismatch 0.0004)",
        seed=0,
        samples=1000,
        batch_size=32,
        device="cpu",
        real_images="none",
        options={"dissection": {"layers": ["layer1", "layer2"], "quantile": 0.01}, "directions": {}},
        versions={"gandissect": "0.1.0", "torch": "2.15.0", "python": "3.12.1"},
        plugins={"gandissect-plugins": "0.1.0"},
        created="2026-11-21T05:00:00+00:00",
        seconds={"dissection": 12.3456, "directions": 4.2},
        passes=3,
        images_generated=3000,
        notes=("the file has no discriminator",),
    )


def sample_report() -> Report:
    """A report as a run would give it, with every block, a partial, a skipped and a failed section."""
    meaning = (
        "Units are compared with concepts by *intersection over union* (IoU).\n\n"
        "- It is **not** causal by itself.\n- Rare concepts score low."
    )
    reference = Reference("D. Bau et al.", 2019, "GAN Dissection", "ICLR")
    found = (
        Finding(
            "**12 of 480 units draw trees** — ablating them removes 71 % of tree area (CI 66–75); chance explains 3 of them.",
            CHECKED,
            0.9,
        ),
        Finding("Direction 1 of `layer2` changes brightness by 0.31 and little else.", WEAK, 0.8),
    )
    sections = (
        Section(
            "Units and concepts",
            *picture_blocks(),
            summary="12 of 480 units match a concept better than chance.",
            findings=found,
            references=(reference,),
            meaning=meaning,
            analyzer="dissection",
            seconds=12.3,
        ),
        Section(
            "Numbers",
            *number_blocks(),
            summary="The discriminator separates real from generated at layer 3 with 97 % accuracy.",
            findings=(Finding("Real and generated differ most at `layer3`.", UNCHECKED, 0.4),),
            analyzer="geometry",
            meaning=meaning,
            status="partly",
        ),
        Section("Words", *word_blocks(), analyzer="notes"),
        Section("Map of units", *unit_blocks(), analyzer="dissection"),
        Section(
            "What the discriminator looks at",
            status="skipped",
            summary="The file has no discriminator; name one with `--discriminator PATH`.",
            analyzer="gradcam",
        ),
        Section(
            "Training progress",
            status="failed",
            summary="ValueError: two snapshots are needed, one was found.",
            details="Traceback (most recent call last):\n  …\nValueError: two snapshots are needed",
            analyzer="progress",
        ),
    )
    return Report(
        "dcgan.pt",
        "DCGAN · z 100 → 64×64 RGB · opened from the state dict, architecture verified (BatchNorm mismatch 0.0004)",
        scenes(10),
        sections,
        provenance(),
    )


if __name__ == "__main__":
    from gandissect_reports.html import HtmlRenderer

    Path(sys.argv[1]).write_text(HtmlRenderer().render(sample_report(), {}), encoding="utf-8")
