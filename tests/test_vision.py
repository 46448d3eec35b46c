"""What a vision tower gives is computed once for an image, and the model trains and answers as with the live tower."""

from dataclasses import replace

import pytest
import torch
from released import backbone_of, turns_of
from test_releases_generative import KINDS

from vlmbench.backbones.base import Turn
from vlmbench.tuning.tuners import Full, Lora


def asked_of(backbone, answered=True):
    """Return six turns on four images of several shapes, two of them asked about twice."""
    turns = turns_of(backbone, answered)
    return [*turns, replace(turns[1], prompt="how many ribs?"), replace(turns[0], prompt="is it normal?")]


def named(turns):
    names = {id(turn.pixels): f"image {number}" for number, turn in enumerate(turns[:4])}
    return [replace(turn, image=names[id(turn.pixels)]) for turn in turns]


def seen(backbone, turns):
    kept = {id(turn.pixels): backbone.see(turn.pixels) for turn in turns}
    return [replace(turn, pixels=kept[id(turn.pixels)]) for turn in turns]


def gradients(backbone, turns):
    backbone.model.zero_grad()
    loss, logits = backbone.forward(backbone.collate(turns, supervise=True))
    loss.backward()
    return logits.detach(), {name: p.grad.clone() for name, p in backbone.model.named_parameters() if p.requires_grad}


def looked_at(backbone, turns):
    """Return how many units go into the first layer's norm of the live tower."""


@pytest.mark.parametrize("name", KINDS)
def test_recalled_and_shared_images_train_and_answer_as_those_of_the_live_tower(name):
    backbone = backbone_of(name)
    Lora("ML", 2, 4.0, 0.0).apply(backbone)
    turns = asked_of(backbone)
    logits, wanted = gradients(backbone, turns)
    ways = {"shared": named(turns), "recalled": seen(backbone, turns), "both": named(seen(backbone, turns))}
    for way, others in ways.items():
        found, grads = gradients(backbone, others)
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5, msg=way)
        for key, gradient in grads.items():
            torch.testing.assert_close(gradient, wanted[key], rtol=1e-4, atol=1e-5, msg=f"{way}: {key}")
    backbone.eval()
    asked = asked_of(backbone, answered=False)
    options = [("yes", "no")] * len(asked)
    plain = backbone.generate(backbone.collate(asked, supervise=False), max_new_tokens=4)
    scores = backbone.score(asked, options)
    both = named(seen(backbone, asked))
    assert backbone.generate(backbone.collate(both, supervise=False), max_new_tokens=4) == plain
    torch.testing.assert_close(backbone.score(both, options), scores, rtol=1e-5, atol=1e-5)
