"""A vision tower apart from its model: what it gives for an image is computed once, and stands in for it from then on.

The boundary lies where the connector begins, so that the connector may train. While `Tower.standing_in` holds, a call
of the tower by the model's own code gives back what was kept, or runs the tower on each image of the batch once; all
around it, the choice of layers, tiles and class tokens above all, stays the model's own code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vlmbench.backbones.base import Turn
from vlmbench.backbones.generative.inputs import ImageInputs, join_images

#: Of an image: what goes into the tower, and what came out of it.
PIXELS, SEEN = "pixel_values", "seen"
#: Of a batch: for each unit of its rows its place in what the tower gives, and for each image the first row with it.
PLACES, FIRST = "places", "first"
#: Attributes by which modules of transformers hold the probability of a dropout that is no module.
_DROPOUTS = ("dropout", "attention_dropout", "drop_path_rate", "dropout_p")

# The thread that makes batches sees anew what is damaged on disk, while the model computes with a tower replaced.
_ONE_AT_A_TIME = threading.RLock()


class Boundary(Protocol):
    """How one kind of model reads its tower. A unit is what the tower computes apart from others: an image, a tile."""

    @property
    def path(self) -> str:
        """Path of the module that is replaced, in the class of transformers."""
        ...

    def units(self, image: ImageInputs) -> int:
        """Return how many units an image has."""
        ...

    def read(self, tower: nn.Module, live: Callable[..., Any], pixels: Tensor, grid: Tensor | None) -> Tensor:
        """Return what the connector reads (units, ...) of a live tower; `grid` has the sizes of the images in it."""
        ...

    def give(self, tower: nn.Module, seen: Tensor) -> Any:
        """Return what the model's code expects of a call of the tower."""
        ...


@dataclass(frozen=True)
class Before:
    """A connector behind the tower, which reads hidden states of the tower; a unit is a tile.

    Attributes:
        path: Of the tower.
        layers: Places in `hidden_states` that are read; empty for `last_hidden_state`.
        depth: Layers of the tower.
    """

    path: str
    layers: tuple[int, ...]
    depth: int

    def units(self, image: ImageInputs) -> int:
        """Return the number of tiles."""
        return len(_tiles(image.tensors[PIXELS]))

    def read(self, tower: nn.Module, live: Callable[..., Any], pixels: Tensor, grid: Tensor | None) -> Tensor:
        """Return the hidden states (tiles, T, F), those of several layers side by side."""
        if not self.layers:
            return live(pixels).last_hidden_state
        states = live(pixels, output_hidden_states=True).hidden_states
        return torch.cat([states[layer] for layer in self.layers], dim=-1)

    def give(self, tower: nn.Module, seen: Tensor) -> Any:
        """Return the tower's output, of which only what is read is there."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        states: list[Tensor | None] = [None] * (self.depth + 1)
        for layer, state in zip(self.layers, seen.chunk(max(1, len(self.layers)), dim=-1), strict=False):
            states[layer] = state
        return BaseModelOutputWithPooling(last_hidden_state=seen, hidden_states=tuple(states))


@dataclass(frozen=True)
class Within:
    """A tower whose last step is the connector: it merges squares of patches. A unit is a merged token.

    Attributes:
        path: Of the module that holds both.
        mergers: Names in it of what is the connector, in the order of what the tower gives.
        square: Patches that become one token.
    """

    path: str
    mergers: tuple[str, ...]
    square: int

    def units(self, image: ImageInputs) -> int:
        """Return the number of merged tokens."""
        return image.tokens

    def read(self, tower: nn.Module, live: Callable[..., Any], pixels: Tensor, grid: Tensor | None) -> Tensor:
        """Return the patches of each token (tokens, square * F), of what each merger reads side by side.

        The mergers only fold meanwhile, so that the tower's own code brings the tokens into their order.
        """

        def fold(patches: Tensor) -> Tensor:
            return patches.reshape(len(patches) // self.square, -1)

        with ExitStack() as held:
            for name in self.mergers:
                held.enter_context(_replaced(tower.get_submodule(name), fold))
            out = live(pixels, grid_thw=grid)
        return torch.cat([out.pooler_output, *(getattr(out, "deepstack_features", None) or [])], dim=-1)

    def give(self, tower: nn.Module, seen: Tensor) -> Any:
        """Return what the mergers make of it."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        parts = seen.chunk(len(self.mergers), dim=-1)
        merged = [
            tower.get_submodule(name)(part.reshape(len(part) * self.square, -1))
            for name, part in zip(self.mergers, parts, strict=True)
        ]
        out = BaseModelOutputWithPooling(last_hidden_state=seen, pooler_output=merged[0])
        out.deepstack_features = merged[1:]
        return out


class Tower:
    """The vision tower of a generative model, live or recalled.

    Args:
        boundary: Where the connector begins.
    """

    def __init__(self, boundary: Boundary) -> None:
        self.boundary = boundary

    def of(self, model: Any) -> nn.Module:
        """Return the module itself, whatever wraps the network."""
        plain: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
        return plain.get_submodule(self.boundary.path)

    def see(self, model: Any, image: ImageInputs) -> ImageInputs:
        """Return an image with what the tower makes of it in place of its pixels; no gradient passes through it.

        Args:
            model: The network.
            image: As `preprocess` gives it.
        """
        tower = self.of(model)
        device, dtype = _place(tower)
        rest = {key: value for key, value in image.tensors.items() if key != PIXELS}
        grid = rest.get("image_grid_thw")
        with _ONE_AT_A_TIME, torch.no_grad():
            pixels = _tiles(image.tensors[PIXELS]).to(device, dtype)
            seen = self.boundary.read(tower, tower.forward, pixels, None if grid is None else grid.to(device))
        return ImageInputs({SEEN: seen, **rest}, image.tokens)

    def join(self, turns: Sequence[Turn]) -> dict[str, Tensor]:
        """Return the images' tensors of a batch, of turns whose image has one name what it is made of only once."""
        order: dict[Any, int] = {}  # name of an image, or the number of a row that shares none, to its first row
        firsts = [order.setdefault(turn.image or row, row) for row, turn in enumerate(turns)]
        images = [turn.pixels for turn in turns]
        what = SEEN if SEEN in images[0].tensors else PIXELS
        if len(order) == len(turns) and what == PIXELS:
            return join_images([image.tensors for image in images])
        batch = join_images([{k: v for k, v in image.tensors.items() if k != what} for image in images])
        batch[what] = torch.cat([_tiles(images[row].tensors[what]) for row in order.values()])
        if len(order) < len(turns):
            start, starts = 0, {}
            for row in order.values():
                count = len(images[row].tensors[SEEN]) if what == SEEN else self.boundary.units(images[row])
                starts[row] = torch.arange(start, start + count)
                start += count
            batch[PLACES] = torch.cat([starts[first] for first in firsts])
            batch[FIRST] = torch.tensor(list(order.values()))
        return batch

    @contextmanager
    def standing_in(self, model: Any, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Give the inputs of the network's own class for a batch of `join`; they hold for calls within the block."""
        inputs = dict(batch)
        seen, places, first = (inputs.pop(key, None) for key in (SEEN, PLACES, FIRST))
        if seen is None and places is None:
            with _ONE_AT_A_TIME:
                yield inputs
            return
        tower = self.of(model)
        live, grid = tower.forward, inputs.get("image_grid_thw")

        def forward(pixel_values: Tensor, *_: Any, **__: Any) -> Any:
            found = seen
            if found is None:
                found = self.boundary.read(tower, live, pixel_values, None if grid is None else grid[first])
            return self.boundary.give(tower, found if places is None else found.index_select(0, places))

        if seen is not None:
            inputs[PIXELS] = seen.new_empty((1, 3, 1, 1))  # the model's code looks whether there is an image
        with _ONE_AT_A_TIME, _replaced(tower, forward):
            yield inputs

    def random(self, model: Any) -> bool:
        """Tell whether the tower draws random numbers while a model trains: it then gives no two times the same."""
        for module in self.of(model).modules():
            rates = [getattr(module, name, 0) for name in _DROPOUTS]
            rates += [getattr(module, "p", 0)] if type(module).__name__.lower().startswith("drop") else []
            if any(isinstance(rate, float) and rate > 0 for rate in rates):
                return True
        return False


def _tiles(pixels: Tensor) -> Tensor:
    """Return the tiles of an image (n, C, H, W), which some processors put into a dimension of their own."""
    return pixels.flatten(0, 1) if pixels.ndim == 5 else pixels


def _place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    parameter = next(p for p in module.parameters() if p.is_floating_point())
    return parameter.device, parameter.dtype


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(module).get("forward")  # of a layer whose activations are computed anew, for one
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # that of its class shows again
        if before is not None:
            module.forward = before
