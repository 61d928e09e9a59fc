import pytest
import torch
from torch import nn

from gandissect.errors import UnknownName
from gandissect.tap import followed, tap


def net() -> nn.Sequential:
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_tap_reads_what_the_layer_gave() -> None:
    module, x = net(), torch.randn(5, 3)
    with tap(module, ["0"]) as acts:
        module(x)
    assert torch.equal(acts["0"], module[0](x))


def test_tap_tells_the_calls_of_a_shared_module_apart() -> None:
    module, x = net(), torch.randn(5, 3)
    with tap(module, ["1", "1@1"]) as acts:
        module(x)
        module(x)
    assert torch.equal(acts["1"], module[:2](x))
    assert torch.equal(acts["1@1"], module[:4](x))


def test_gradients_begin_at_a_followed_output_without_history_and_nothing_else_changes() -> None:
    embedding = nn.Embedding(4, 3).requires_grad_(False)
    module, labels = nn.Sequential(embedding, nn.ReLU(inplace=True), nn.Linear(3, 1)), torch.arange(4)
    plain = module(labels)
    with tap(module, ["0"], followed) as acts:
        out = module(labels)
    (slope,) = torch.autograd.grad(out.sum(), [acts["0"]])
    assert torch.equal(out, plain)
    assert slope.shape == (4, 3) and slope.abs().sum() > 0


def test_an_edit_replaces_the_output() -> None:
    module, x = net(), torch.randn(5, 3)
    with tap(module, ["2"], lambda _name, act: act * 0) as acts:
        out = module(x)
    assert torch.equal(acts["2"], torch.zeros(5, 4))
    assert torch.equal(out, module[4](torch.zeros(5, 4)))


def test_gradients_flow_to_a_tapped_layer() -> None:
    module, x = net(), torch.randn(5, 3)
    with tap(module, ["0"]) as acts:
        out = module(x)
    assert torch.autograd.grad(out.sum(), acts["0"])[0].shape == (5, 4)


def test_tap_leaves_no_hook_after_an_error() -> None:
    module = net()
    with pytest.raises(RuntimeError), tap(module, ["0"]):
        module(torch.randn(5, 99))
    assert hooks(module) == 0


def test_an_unknown_layer_is_refused_before_anything_is_hooked() -> None:
    module = net()
    with pytest.raises(UnknownName, match="did you mean"), tap(module, ["0", "11"]):
        pass
    assert hooks(module) == 0


def test_a_pass_that_is_only_for_its_layers_ends_at_the_last_of_them() -> None:
    module, x = net(), torch.randn(5, 3)
    ran: list[str] = []
    module[4].register_forward_hook(lambda *_: ran.append("output"))
    with tap(module, ["1@1", "0"], only=True) as acts:
        module(x)
    assert torch.equal(acts["1@1"], module[:4](x)) and torch.equal(acts["0"], module[0](x)) and not ran
    assert hooks(module) == 1


def test_a_failure_before_the_last_layer_is_not_taken_for_its_end() -> None:
    module = net()
    with pytest.raises(RuntimeError), tap(module, ["2", "4"], only=True):
        module(torch.randn(5, 7))
