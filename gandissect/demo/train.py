"""Train the demo's GAN on drawn scenes.

    python -m gandissect.demo.train --out weights --minutes 61 --threads 1 --seed 0

Everything that ships is written every few minutes, so stopping early leaves a usable, only worse, set of files.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gandissect.demo.bundle import GAN_FILE, save_gan
from gandissect.demo.networks import SceneDiscriminator, SceneGenerator
from gandissect.demo.scenes import bytes_to_images, scene_bytes

_KEPT = (1 / 27, 1 / 9, 1 / 3)  # after which fractions of the training a snapshot is kept


@dataclass(frozen=True)
class Recipe:
    """How the GAN is trained.

    Attributes:
        rate: learning rate of both networks; falls linearly to a tenth over the last 30 % of the time.
        batch: scenes, and samples, in one step.
        penalty: weight of the gradient penalty R1, applied every ``lazy`` steps.
        spread: weight, in the generator's loss, of how differently scenes and samples are spread at 8x8 pixels.
        memory: decay per step of the averaged generator that ships.
    """

    rate: float = 6e-4
    batch: int = 32
    penalty: float = 0.5
    lazy: int = 16
    spread: float = 10.0
    memory: float = 0.999


@dataclass(frozen=True)
class Moment:
    """Means over the steps since the moment before.

    Attributes:
        d_real: the discriminator's mean logit for scenes.
        d_fake: its mean logit for samples.
        gradient: norm of the generator's gradient.
        seconds: since the start.
    """

    step: int
    seconds: float
    d_loss: float
    g_loss: float
    d_real: float
    d_fake: float
    gradient: float


@dataclass
class Trainer:
    """The two networks under training, the averaged generator that ships, and the record of it.

    Attributes:
        measured: over how many samples the batch norms of what ships are measured.
        every: how many steps make a moment.
        record: the moments so far.
    """

    seed: int
    recipe: Recipe = field(default_factory=Recipe)
    measured: int = 8192
    every: int = 50
    step: int = 0
    record: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.generator = SceneGenerator().to(memory_format=torch.channels_last)
        self.discriminator = SceneDiscriminator().to(memory_format=torch.channels_last)
        for net in (self.generator, self.discriminator):
            net.apply(_initialise)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        betas = (0.5, 0.99)
        self._g_optimizer = torch.optim.Adam(self.generator.parameters(), self.recipe.rate, betas)
        self._d_optimizer = torch.optim.Adam(self.discriminator.parameters(), self.recipe.rate, betas)

    def advance(self, real: Tensor, rate: float) -> tuple[float, ...]:
        """One step of both networks.

        Args:
            real: float32 [N, 3, 64, 64] in [-1, 1].
            rate: the learning rate now.

        Returns:
            ``d_loss``, ``g_loss``, ``d_real``, ``d_fake``, ``gradient`` of a `Moment`.
        """
        for group in (*self._g_optimizer.param_groups, *self._d_optimizer.param_groups):
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            fake = self.generator(torch.randn(len(real), self.generator.latent_size))
        d_loss, d_real, d_fake = self._teach_discriminator(real, fake.detach())
        g_loss, gradient = self._teach_generator(fake, real)
        with torch.no_grad():
            memory = min(self.recipe.memory, (1 + self.step) / (10 + self.step))
            for kept, new in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                kept.lerp_(new, 1 - memory)
        self.step += 1
        return d_loss, g_loss, d_real, d_fake, gradient

    def _teach_discriminator(self, real: Tensor, fake: Tensor) -> tuple[float, float, float]:
        self.discriminator.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            on_real, on_fake = self.discriminator(torch.cat([real, fake.to(real.dtype)])).float().chunk(2)
        # Goodfellow et al. 2014, the non-saturating loss
        loss = functional.softplus(-on_real).mean() + functional.softplus(on_fake).mean()
        self._d_optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.step % self.recipe.lazy == 0:
            torch.autograd.backward(self.recipe.lazy * self.recipe.penalty / 2 * slope(self.discriminator, real))
        self._d_optimizer.step()
        return float(loss.detach()), float(on_real.detach().mean()), float(on_fake.detach().mean())

    def _teach_generator(self, fake: Tensor, real: Tensor) -> tuple[float, float]:
        self.discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            on_fake = self.discriminator(fake).float()
        loss = functional.softplus(-on_fake).mean()
        apart = sliced_distance(_coarse(fake.float()), _coarse(real))
        self._g_optimizer.zero_grad()
        torch.autograd.backward(loss + self.recipe.spread * apart)
        gradient = nn.utils.clip_grad_norm_(self.generator.parameters(), 1e9)
        self._g_optimizer.step()
        return float(loss.detach()), float(gradient)

    def save(self, out: Path, *, snapshot: bool = False) -> None:
        """Write the averaged generator with its discriminator and the record, or a snapshot of the generator."""
        shipped = copy.deepcopy(self.average)
        measure_batch_norm(shipped, samples=self.measured, seed=self.seed)
        if snapshot:
            path = out / "snapshots" / f"scenes-gan-step-{self.step:05d}.safetensors"
            save_gan(path, shipped, None, seed=self.seed, step=self.step, dtype=torch.float16)
        else:
            save_gan(out / GAN_FILE, shipped, self.discriminator, seed=self.seed, step=self.step)
            facts = {"recipe": asdict(self.recipe), "curve": [asdict(moment) for moment in self.record]}
            (out / "training.json").write_text(json.dumps(facts, indent=0) + "\n")


def slope(discriminator: nn.Module, real: Tensor) -> Tensor:
    """The squared gradient of the logit by the picture, mean over scenes (R1), float32 [].

    References:
        Mescheder, Geiger, Nowozin 2018, Which Training Methods for GANs do actually Converge?, eq. 9.
    """
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def sliced_distance(a: Tensor, b: Tensor, directions: int = 128) -> Tensor:
    """The mean squared Wasserstein distance of two sets of vectors, seen along random directions, float32 [].

    Unlike a discriminator, which judges one picture at a time, it notices when all samples show the day.

    Args:
        a: float32 [N, D].
        b: float32 [N, D].
        directions: how many.

    References:
        Bonneel et al. 2015, Sliced and Radon Wasserstein Barycenters of Measures.
    """
    lines = functional.normalize(torch.randn(a.shape[1], directions), dim=0)
    return ((a @ lines).sort(0).values - (b @ lines).sort(0).values).square().mean()


def _coarse(images: Tensor) -> Tensor:
    """Float32 [N, 192]: the images at 8x8 pixels."""
    return functional.avg_pool2d(images, 8).flatten(1)


@torch.no_grad()
def measure_batch_norm(generator: SceneGenerator, *, samples: int, seed: int) -> None:
    """Set every batch norm's running mean and variance to what they are on the prior, layer after layer."""
    generator.eval()
    source = torch.Generator().manual_seed(seed)
    latents = torch.split(torch.randn(samples, generator.latent_size, generator=source), 256)
    layers = (generator.layer1, generator.layer2, generator.layer3, generator.layer4)
    batches = [part.reshape(-1, generator.latent_size, 1, 1) for part in latents]
    for layer in layers:
        norm = layer[1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        batches = [layer[0](part) for part in batches]
        means = torch.stack([part.mean((0, 2, 3), dtype=torch.float64) for part in batches])
        squares = torch.stack([part.double().square().mean((0, 2, 3)) for part in batches])
        mean = means.mean(0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(squares.mean(0) - mean**2)
        batches = [layer[2](norm(part)) for part in batches]


def train(trainer: Trainer, pixels: NDArray[np.uint8], out: Path, *, steps: int, minutes: float, save: float) -> None:
    """Train until so many steps or minutes have passed, writing files to ``out`` every ``save`` minutes.

    Args:
        trainer: what to train.
        pixels: uint8 [M, 64, 64, 3], the scenes.
        out: a folder.
        steps: at most so many.
        minutes: of wall-clock time, at most so many.
        save: minutes between two writings.
    """
    rng = np.random.default_rng(trainer.seed)
    start, recent, saved, kept = time.monotonic(), [], 0.0, 0
    while True:
        elapsed = time.monotonic() - start
        progress = max(elapsed / (60 * minutes), trainer.step / steps)
        if progress >= 1:
            break
        chosen = rng.integers(0, len(pixels), trainer.recipe.batch)
        real = torch.from_numpy(bytes_to_images(pixels[chosen])).contiguous(memory_format=torch.channels_last)
        rate = trainer.recipe.rate * min(1.0, 1 - 0.9 * (progress - 0.7) / 0.3)
        recent.append(trainer.advance(real, rate))
        if trainer.step % trainer.every == 0:
            means = (round(float(x), 4) for x in np.mean(recent, axis=0))
            trainer.record.append(Moment(trainer.step, round(elapsed, 1), *means))
            recent.clear()
        if kept < len(_KEPT) and progress >= _KEPT[kept]:
            trainer.save(out, snapshot=True)
            kept += 1
        if elapsed >= saved + 60 * save:
            trainer.save(out)
            saved = elapsed
            print(trainer.record[-1:], flush=True)
    trainer.save(out)


def main() -> None:
    """Train for a while and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=61.0)
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--scenes", type=int, default=32768)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pixels, _, _ = scene_bytes(options.seed, range(options.scenes))
    trainer = Trainer(options.seed)
    train(trainer, pixels, options.out, steps=options.steps, minutes=options.minutes, save=options.save_minutes)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, 0.2)
        nn.init.zeros_(module.bias) if module.bias is not None else None
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
        nn.init.zeros_(module.bias) if module.bias is not None else None


if __name__ == "__main__":
    main()
