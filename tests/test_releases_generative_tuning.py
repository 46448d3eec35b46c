"""Every architecture trains where the scope says and nowhere else, every tensor of it, and comes back as it was."""

import pytest
import torch
from released import backbone_of, turns_of
from test_releases_generative import KINDS

from vlmbench.config.method_checks import GENERATIVE_SCOPES
from vlmbench.tuning.lora import targeted
from vlmbench.tuning.parameters import without_gradient
from vlmbench.tuning.tuners import Full, Lora
from vlmbench.weights.release import CheckpointError

PARTS = {"V": "vision", "M": "connector", "L": "language"}


def step_twice(backbone):
    """Take one optimiser step and return what has no usable gradient after it."""
    trained = [p for p in backbone.model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    batch = backbone.collate(turns_of(backbone), supervise=True)
    backbone.model.train()
    for last in (False, True):
        optimiser.zero_grad()
        backbone.forward(batch)[0].backward()
        if not last:
            optimiser.step()
    return without_gradient(backbone.model.named_parameters())


def trained_parts(backbone):
    names = [name.removeprefix("base_model.model.") for name, p in backbone.model.named_parameters() if p.requires_grad]
    return {part for name in names for part, prefixes in backbone.part_prefixes.items() if name.startswith(prefixes)}


@pytest.mark.parametrize("scope", GENERATIVE_SCOPES)
@pytest.mark.parametrize("name", KINDS)
def test_every_tensor_of_the_scope_trains_in_full_and_no_other(name, scope):
    backbone = backbone_of(name)
    Full(scope).apply(backbone)
    assert trained_parts(backbone) == {PARTS[letter] for letter in scope}
    assert step_twice(backbone) == {}


ADAPTED = [(name, scope, "full") for name in KINDS for scope in GENERATIVE_SCOPES]
ADAPTED += [(name, scope, "lora") for name, scope, _ in ADAPTED if "M" in scope and name != "gemma3"]


@pytest.mark.parametrize(("name", "scope", "connector"), ADAPTED)
def test_every_adapter_of_the_scope_trains_and_no_other(name, scope, connector):
    backbone = backbone_of(name)
    Lora(scope, 2, 4.0, 0.0, connector).apply(backbone)
    assert trained_parts(backbone) == {PARTS[letter] for letter in scope}
    assert step_twice(backbone) == {}


# Linear layers of the small checkpoints: layers times those of a block, in tower and language model.
COUNTS = {
    "blip2_opt": (3 * 4, 2 * 6),
    "gemma3": (3 * 6, 6 * 7),
    "internvl3": (3 * 6, 2 * 7),
    "llava": (2 * 6, 2 * 7),
    "llava_med_hf": (2 * 6, 2 * 7),
    "llava_next": (2 * 6, 2 * 7),
    "llava_onevision": (3 * 6, 2 * 7),
    "qwen25_vl": (3 * 5, 2 * 7),
    "qwen2_vl": (3 * 4, 2 * 7),
    "qwen3_vl": (3 * 4, 3 * 7),
}


@pytest.mark.parametrize("name", KINDS)
def test_adapters_are_in_every_linear_layer_that_is_read(name):
    for scope, count in zip("VL", COUNTS[name], strict=True):
        backbone = backbone_of(name)
        Lora(scope, 2, 4.0, 0.0).apply(backbone)
        assert len(targeted(backbone.model)) == count


@pytest.mark.parametrize("tuner", [Lora("VML", 2, 4.0, 0.0), Lora("ML", 2, 4.0, 0.0), Full("VML"), Full("M")], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_what_was_trained_comes_back_onto_a_fresh_checkpoint(name, tuner, tmp_path):
    first, second = backbone_of(name), backbone_of(name)
    batch = first.collate(turns_of(first), supervise=True)
    with torch.no_grad():
        untuned = second.eval() and second.forward(batch)[1]
    tuner.apply(first)
    trained = {name: p for name, p in first.model.named_parameters() if p.requires_grad}
    step_twice(first)
    tuner.save(first, tmp_path)
    tuner.load(second, tmp_path)
    back = dict(second.model.named_parameters())
    for name, p in trained.items():
        assert torch.equal(p, back[name]), name
    first.eval(), second.eval()
    with torch.no_grad():
        tuned, restored = first.forward(batch)[1], second.forward(batch)[1]
    torch.testing.assert_close(tuned, restored, rtol=1e-4, atol=1e-4)
    assert (tuned - untuned).abs().max() > 1e-3
    assert first.generate(first.collate(turns_of(first, answered=False), supervise=False), max_new_tokens=3)


def test_lora_in_a_connector_without_linear_layers_is_one_clear_error():
    with pytest.raises(CheckpointError, match=r"connector of gemma3 .* Set finetune\.connector=full"):
        Lora("ML", 2, 4.0, 0.0, "lora").apply(backbone_of("gemma3"))
