"""QLoRA as its paper has it, on every architecture, and in a cell; skipped where bitsandbytes is not installed."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from released import backbone_of, turns_of
from test_releases_generative import KINDS
from torch import nn

from vlmbench.catalogue import memory
from vlmbench.config import presence, schema
from vlmbench.config.faults import AbsentError
from vlmbench.errors import UserError
from vlmbench.modules.optimiser import paged_adamw
from vlmbench.tuning.lora import targeted
from vlmbench.tuning.parameters import count_by_part, without_gradient
from vlmbench.tuning.tuners import Lora, Qlora

extra = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="NOT TESTED, bitsandbytes is not installed: pip install 'vlmbench[qlora]'"
)
QLORA = Qlora(Lora("ML", 4, 8.0, 0.0))

# Appendix E of arXiv 2305.14314.
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)


def in_blocks(weight, block=64):
    """Return the numbers of a weight's levels and its scales, by section 3 of the paper."""
    blocks = weight.reshape(-1, block)
    scales = blocks.abs().amax(1)
    return (blocks[..., None] / scales[:, None, None] - NF4).abs().argmin(-1), scales


@extra
def test_the_weights_are_the_papers():
    import bitsandbytes as bnb

    from vlmbench.tuning.quantise import quantise

    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"seen": nn.Linear(512, 384), "unseen": nn.Linear(8, 8), "empty": nn.Identity()})
    weight, x = model["seen"].weight.detach().clone(), torch.randn(32, 512)
    exact = model["seen"](x)
    assert quantise(model, "seen|empty") == ["seen"]
    small, state = model["seen"], model["seen"].weight.quant_state
    levels, scales = in_blocks(weight)
    packed = small.weight.data.flatten().int()
    assert torch.equal(torch.stack([packed >> 4, packed & 15], 1).flatten(), levels.flatten().int())
    # 8 bits a scale, of what the scales differ by from their mean.
    back = bnb.functional.dequantize_4bit(small.weight.data, state).reshape(-1, 64)
    found = back.abs().amax(1) / NF4[levels].abs().amax(1)
    assert (found - scales).abs().max() <= (scales - scales.mean()).abs().max() / 32
    torch.testing.assert_close(back, NF4[levels] * found[:, None], rtol=1e-5, atol=1e-7)
    held = [small.weight.data, state.absmax, state.state2.absmax]
    bits = 8 * sum(part.nbytes for part in held) / weight.numel()
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)
    assert bits / 8 == pytest.approx(memory.FOUR_BITS, abs=1e-3)
    # A product is that with the weights put together, and off from the exact one by what 16 levels cost.
    out = small(x)
    torch.testing.assert_close(out, nn.functional.linear(x, back.reshape(384, 512), small.bias), rtol=1e-4, atol=1e-4)
    lost = ((back.reshape(384, 512) - weight).norm() / weight.norm()).item()
    assert 0.05 < lost < 0.12
    assert ((out - exact).norm() / (exact - small.bias).norm()).item() == pytest.approx(lost, rel=0.1)
    with pytest.raises(ValueError, match="no Linear layer to hold in 4 bits"):
        quantise(model, "elsewhere")


@extra
@pytest.mark.parametrize("name", KINDS)
def test_the_language_model_alone_is_in_4_bits_and_only_what_lies_on_it_trains(name):
    from bitsandbytes.nn import Linear4bit

    untouched, backbone = backbone_of(name), backbone_of(name)
    QLORA.apply(backbone)
    small = {path.replace(".base_layer", "") for path, m in backbone.model.named_modules() if isinstance(m, Linear4bit)}
    small = {path.removeprefix("base_model.model.") for path in small}
    assert small == set(targeted(backbone.model))
    inside = {path for path, m in untouched.model.named_modules() if isinstance(m, nn.Linear)}
    language = tuple(prefix for prefix in untouched.part_prefixes["language"] if not prefix.startswith("lm_head"))
    assert small == {path for path in inside if path.startswith(language)} - {"language_model.lm_head"}
    frozen = {n: p.detach().clone() for n, p in backbone.model.named_parameters() if not p.requires_grad}
    optimiser = torch.optim.AdamW([p for p in backbone.model.parameters() if p.requires_grad], lr=1e-2)
    batch = backbone.collate(turns_of(backbone), supervise=True)
    losses = []
    for _ in range(3):
        # Between two steps comes validation, after which gradients must still pass.
        backbone.eval()
        with torch.no_grad():
            losses.append(float(backbone.forward(batch)[0]))
        backbone.train()
        optimiser.zero_grad()
        backbone.forward(batch)[0].backward()
        optimiser.step()
    assert without_gradient(backbone.model.named_parameters()) == {}
    assert losses[2] < losses[1] < losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in backbone.model.named_parameters() if n in frozen)
    QLORA.lora.apply(untouched)
    counts = [count_by_part(one.model, one.part_prefixes) for one in (backbone, untouched)]
    assert counts[0] == counts[1]


@extra
def test_what_was_trained_comes_back_onto_a_fresh_checkpoint(tmp_path):
    first, second = backbone_of("llava"), backbone_of("llava")
    batch = first.collate(turns_of(first), supervise=True)
    QLORA.apply(first)
    trained = [p for p in first.model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        first.forward(batch)[0].backward()
        optimiser.step()
    QLORA.save(first, tmp_path)
    assert sorted(path.name for path in (tmp_path / "adapter").glob("*.*")) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    QLORA.load(second, tmp_path)
    first.eval(), second.eval()
    with torch.no_grad():
        assert torch.equal(first.forward(batch)[1], second.forward(batch)[1])
    asked = first.collate(turns_of(first, answered=False), supervise=False)
    assert first.generate(asked, max_new_tokens=4) == second.generate(asked, max_new_tokens=4)


@extra
def test_a_cell_is_trained_and_taken_to_another_domain(train, command, tmp_path):
    ran = train("model=tiny_llava", "finetune=qlora", "trainer.precision=bf16-mixed")
    assert ran.status == 0, ran.err
    assert ran.record["training"]["output_change"] > 0
    assert ran.record["config"]["finetune"]["lr"] == 2e-3  # the model's for LoRA
    trainable = {part for part, row in ran.record["cost"]["parameters"].items() if row["trainable"]}
    assert trainable == {"connector", "language"}
    (cell,) = ran.cells
    moved = command("evaluate", f"cell={cell}", "domain=phantom_ultrasound", "domain.patients=12")
    assert moved[0] == 0, moved[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=tiny_clip"], "Valid choices: zero_shot"),
        (["finetune.scope=VM"], "finetune.scope=ML, or finetune=lora"),
        (["trainer=fsdp"], "Set trainer=ddp"),
        (["finetune.optimiser=paged_adamw", "trainer.accelerator=cpu"], "Set finetune.optimiser=adamw"),
    ],
)
def test_what_cannot_be_is_refused(command, words, said):
    status, _, err = command("train", "model=tiny_llava", "finetune=qlora", *words)
    assert status == 2
    assert said in err


def test_a_missing_package_is_told_with_its_remedy(command, monkeypatch, tmp_path):
    monkeypatch.setattr(presence, "find_spec", lambda _: None)
    where = ["model=tiny_llava", "finetune=lora,qlora", "domain.patients=12", f"output={tmp_path}"]
    _, plan, _ = command("grid.__main__", "plan", *where)
    assert "package of qlora (1 cells): pip install 'vlmbench[qlora]'" in plan
    assert "weights of" not in plan
    presence.package_present(schema.LoraConfig())
    with pytest.raises(AbsentError, match=r"pip install 'vlmbench\[qlora\]'.*GPUs and, slowly, on CPUs"):
        presence.package_present(schema.QloraConfig())


@extra
def test_the_paged_optimiser_steps_as_adamw():
    import bitsandbytes as bnb

    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(20, 30)) for _ in range(2))
    # Small tensors are not paged: these steps need no GPU.
    paged = bnb.optim.PagedAdamW32bit([{"params": [ours], "weight_decay": 0.1}], lr=1e-2)
    plain = torch.optim.AdamW([{"params": [theirs], "weight_decay": 0.1}], lr=1e-2)
    for _ in range(4):
        ours.grad = torch.randn(20, 30)
        theirs.grad = ours.grad.clone()
        paged.step(), plain.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_pages_are_those_of_a_gpu():
    with pytest.raises(UserError, match=r"Set finetune\.optimiser=adamw"):
        paged_adamw([], 1e-3, torch.device("cpu"))


def test_four_bits_take_a_quarter_of_the_memory_but_for_the_embeddings():
    parts, shape = {"vision": 0.3e9, "language": 6.7e9}, memory.Shape(True, 576, 576, 32_000)
    lora, qlora = (memory.memory(parts, shape, name, trained={}, scope="L", batch=0) for name in ("lora", "qlora"))
    embeddings = 32_000 * 4096
    assert lora - qlora == pytest.approx((2 - 4.127 / 8) * (6.7e9 - embeddings), rel=0.01)
