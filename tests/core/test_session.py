from typing import cast

import pytest
import torch

from gandissect.borrow import borrowed
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.errors import NoSuchCapability, UnknownName, UsageError
from gandissect.real import RealImages
from gandissect.reducers import KeepSpec, MomentsSpec, TailSpec
from gandissect.session import Activations, Areas, CellAreas, Images, Masks, Scores, Session, Want
from gandissect.testing import PLANTED, tiny_gan

BRIGHT = Vocabulary([CallableSegmenter(lambda images: images.mean(1) > 0, ["bright"])])
WANTS = [
    Want((Activations("act1"),), MomentsSpec(), 40),
    Want((Activations("act1"),), TailSpec(30), 40),
    Want((Images(),), KeepSpec(), 33),
    Want((Scores(),), KeepSpec(), 40),
    Want((Areas(),), KeepSpec(), 17),
    Want((CellAreas(8, 8),), KeepSpec("float16"), 40),
    Want((Activations("act", "discriminator"),), KeepSpec(pool="mean"), 40),
]


def tensors(result: object) -> list[torch.Tensor]:
    return (
        [result]
        if isinstance(result, torch.Tensor)
        else [v for v in vars(result).values() if isinstance(v, torch.Tensor)]
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_evidence_has_the_same_bits_for_every_batch_size(batch_size: int) -> None:
    reference = Session(tiny_gan("planted"), vocabulary=BRIGHT, n=40)
    session = Session(tiny_gan("planted"), vocabulary=BRIGHT, n=40, batch_size=batch_size)
    for want in WANTS:
        for a, b in zip(tensors(session[want]), tensors(reference[want]), strict=True):
            if want.reduce == MomentsSpec():
                torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
            else:
                assert torch.equal(a, b)


def test_fused_wants_cost_one_pass() -> None:
    session = Session(tiny_gan(), vocabulary=BRIGHT, n=40)
    session.prepare(WANTS)
    assert (session.passes, session.images_generated) == (1, 40)
    session.prepare(WANTS)
    assert session.passes == 1


def test_fewer_samples_are_a_prefix_of_more() -> None:
    few, many = Session(tiny_gan("random"), n=5), Session(tiny_gan("random"), n=50)
    assert torch.equal(few.images(5), many.images(50)[:5])


def test_a_pass_that_looks_at_no_image_reads_the_same_activations() -> None:
    gan = tiny_gan("planted")
    want = Want((Activations(PLANTED.layer),), KeepSpec(), 5)
    alone, together = Session(gan, n=5), Session(gan, n=5)
    together.prepare([want, Want((Images(),), KeepSpec(), 5)])
    outputs: list[torch.Tensor] = []
    handle = gan.generator.module.register_forward_hook(lambda _module, _args, out: outputs.append(out))
    read = alone[want]
    handle.remove()
    assert torch.equal(cast(torch.Tensor, read), cast(torch.Tensor, together[want])) and not outputs


def test_what_is_known_is_not_generated_again() -> None:
    session = Session(tiny_gan(), n=40)
    session.images(40)
    session.images(7)
    assert session.images_generated == 40


def test_generate_repeats_the_samples_bit_for_bit() -> None:
    session = Session(tiny_gan("random"), n=37)
    assert torch.equal(session.generate(session.latents()), session.images())


def test_an_edit_changes_the_image_and_leaves_no_trace() -> None:
    session = Session(tiny_gan("random"), n=20)
    before = session.images()
    edited = session.generate(session.latents(), edit=lambda _name, act: act * 0, layers=["act3"])
    assert not torch.equal(edited, before)
    assert torch.equal(session.generate(session.latents()), before)


def test_a_live_module_is_as_it_was() -> None:
    gan = tiny_gan("random")
    module = gan.generator.module.train()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    session = Session(gan, vocabulary=BRIGHT, n=20)
    session.prepare([Want((Activations("act1"), Masks()), KeepSpec("float32"), 20)])
    session.score(session.images(5))
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert torch.equal(random_state, torch.get_rng_state())


def test_borrowed_gives_back_after_an_exception() -> None:
    module = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(2, 2)).train()
    with pytest.raises(KeyError), borrowed(module):
        assert not module.training
        assert not module[0].inplace
        raise KeyError
    assert module.training
    assert module[0].inplace
    assert module[1].weight.requires_grad


def test_inplace_activations_do_not_overwrite_what_is_read() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.ReLU(inplace=True), torch.nn.Linear(12, 64))
    import gandissect

    session = Session(gandissect.wrap(inner), n=20)
    assert session.activations("0").min() < 0


def test_real_images_flow_through_the_same_wants() -> None:
    real = RealImages.from_tensor(torch.rand(21, 3, 32, 32) * 2 - 1)
    session = Session(tiny_gan(), vocabulary=BRIGHT, real=real, n=40)
    assert session.scores(real=True).shape == (21,)
    assert session.activations("act", network="discriminator", real=True).shape == (21, 4, 8, 8)
    assert session.images_generated == 0


def test_scores_without_a_discriminator_say_what_to_pass() -> None:
    with pytest.raises(NoSuchCapability, match="--discriminator"):
        Session(tiny_gan(discriminator=False), n=5).scores()


def test_an_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="act1"):
        Session(tiny_gan(), n=5).activations("act9")


def test_no_samples_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Session(tiny_gan(), n=0)


def test_memory_running_out_halves_the_block_and_is_noted() -> None:
    gan = tiny_gan()
    forward = gan.generator.module.forward

    def scarce(z: torch.Tensor) -> torch.Tensor:
        if len(z) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(z)

    gan.generator.module.forward = scarce  # type: ignore[method-assign]
    session = Session(gan, n=10)
    assert len(session.images()) == 10
    assert "blocks of 4" in session.notes[-1]


def test_only_the_segmenters_of_the_concepts_that_are_asked_for_look() -> None:
    asked: list[str] = []

    def looking(name: str, channel: int) -> CallableSegmenter:
        def look(images: torch.Tensor) -> torch.Tensor:
            asked.append(name)
            return images[:, [channel, (channel + 1) % 3]] > 0

        return CallableSegmenter(look, [name, f"{name} too"])

    session = Session(
        tiny_gan(), vocabulary=Vocabulary([looking("red", 0), looking("green", 1), looking("blue", 2)]), n=20
    )
    images = session.images(20)
    whole = session.segment(images)
    asked.clear()
    assert torch.equal(session.segment(images, only=[4, 0, 1]), whole[:, [4, 0, 1]])
    assert set(asked) == {"blue", "red"}
    assert session.segment(images, only=[]).shape == (20, 0, *images.shape[2:])
