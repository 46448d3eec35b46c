"""Preprocessed images as bytes: a byte a value where that loses nothing; and what tells preprocessings apart.

A model's preprocessing ends in (value / 255 - mean) / deviation, a channel at a time, of 8-bit values. The 256 numbers
that a channel can hold are learned from what is made of a few synthetic images; an image is kept as places in these
tables if that gives the very same numbers back, bit for bit, and as it is if not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

LEVELS, CHANNELS = 256, 3
#: Widths and heights of the synthetic images: both orientations, larger and smaller than models take.
PROBES = ((512, 512), (640, 360), (180, 420), (48, 64))
#: What a blob names its tensor where preprocessing gives one alone.
_ALONE = ""

Preprocess = Callable[[Image.Image], Any]


class UnkeptError(Exception):
    """What preprocessing gives is not made of tensors, or it fails for a synthetic image."""


@dataclasses.dataclass(frozen=True)
class Palette:
    """The numbers that the channels of a tensor can hold.

    Attributes:
        axis: Which axis the channels divide, from the end; it may hold more than one value of each, as patches do.
        values: Float32 (3, 256), ascending.
    """

    axis: int
    values: NDArray[np.float32]

    @property
    def evenly_spaced(self) -> bool:
        """Whether each value tells its place by its size."""
        return self._places(self.values[None]) is not None

    def encode(self, values: NDArray[np.float32]) -> bytes | None:
        """Return the places of values in the table, or None where they would not give the same bits back."""
        if values.ndim < -self.axis or values.shape[self.axis] % CHANNELS or not values.size:
            return None
        places = self._places(values.reshape(-1, CHANNELS, _inner(values.shape, self.axis)))
        return None if places is None else places.tobytes()

    def decode(self, places: bytes | memoryview, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the values of a shape at these places."""
        return self._values(np.frombuffer(places, np.uint8).reshape(-1, CHANNELS, _inner(shape, self.axis))).reshape(
            shape
        )

    def _places(self, values: NDArray[np.float32]) -> NDArray[np.uint8] | None:
        low, high = self.values[:, :1], self.values[:, -1:]
        with np.errstate(all="ignore"):
            near = (values - low) * ((LEVELS - 1) / (high - low))
            places = np.rint(near, out=near).clip(0, LEVELS - 1).astype(np.uint8)
        same = np.array_equal(self._values(places).view(np.int32), np.ascontiguousarray(values).view(np.int32))
        return places if same else None

    def _values(self, places: NDArray[np.uint8]) -> NDArray[np.float32]:
        out = np.empty(places.shape, np.float32)
        for channel in range(CHANNELS):
            np.take(self.values[channel], places[:, channel], out=out[:, channel], mode="clip")
        return out


class Codec:
    """What one model's preprocessing gives, as bytes and back.

    Attributes:
        fingerprint: SHA-256 of what the preprocessing makes of synthetic images, and of the tables.
        typical_bytes: What the largest of these takes.

    Args:
        preprocess: RGB image to a tensor, or to an object with `tensors` by name and a number of `tokens`.

    Raises:
        UnkeptError: It gives something else, or fails for a synthetic image.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        try:
            made = [preprocess(probe(*size)) for size in PROBES]
        except Exception as error:  # what users' images need not have in common with these
            raise UnkeptError(f"preprocessing fails for a synthetic image: {type(error).__name__}: {error}") from error
        self._like = made[0]  # for the attributes of a result that are not kept
        named = [_tensors(one) for one in made]
        self.palettes = {name: _palette(name, [one[name] for one in named], preprocess) for name in named[0]}
        digest = hashlib.sha256()
        for one in made:
            digest.update(_as_it_is(one))
        for name, palette in sorted(self.palettes.items()):
            kept = b"" if palette is None else palette.axis.to_bytes(1, signed=True) + palette.values.tobytes()
            digest.update(name.encode() + kept)
        self.fingerprint = digest.hexdigest()
        self.typical_bytes = max(len(self.encode(one)) for one in made)

    def encode(self, made: Any) -> bytes:
        """Return what preprocessing gave as bytes."""
        header, parts = _described(made), []
        for entry, value in zip(header["tensors"], _tensors(made).values(), strict=True):
            palette = self.palettes.get(entry["name"])
            codes = palette.encode(value.numpy()) if palette and value.dtype == torch.float32 else None
            entry["coded"] = codes is not None
            parts.append(_bytes(value) if codes is None else codes)
        return _packed(header, parts)

    def decode(self, blob: bytes) -> Any:
        """Return what preprocessing gave, bit for bit."""
        size = int.from_bytes(blob[:4], "little")
        tokens, entries = _header(blob[4 : 4 + size])
        tensors, start, view = {}, 4 + size, memoryview(blob)
        for name, dtype, shape, coded, length in entries:
            part = view[start : start + length]
            start += length
            palette = self.palettes.get(name)
            if coded and palette:
                tensors[name] = torch.from_numpy(palette.decode(part, shape))
            else:  # a copy, because a tensor is written to
                tensors[name] = torch.frombuffer(bytearray(part), dtype=dtype).reshape(shape)
        if tokens is None:
            return tensors[_ALONE]
        return dataclasses.replace(self._like, tensors=tensors, tokens=tokens)

    @staticmethod
    def is_coded(blob: bytes) -> bool:
        """Tell whether every tensor of floats in a blob takes a byte a value."""
        size = int.from_bytes(blob[:4], "little")
        return all(coded or not dtype.is_floating_point for _, dtype, _, coded, _ in _header(blob[4 : 4 + size])[1])


def probe(width: int, height: int, turn: int = 0) -> Image.Image:
    """Return a synthetic RGB image of every level in every channel, the channels different.

    A steep ramp along one axis and a shallow one along the other, so that a small version of it has every level too;
    clipped towards the edges, which may be cropped.

    Args:
        width: In pixels.
        height: In pixels.
        turn: 1 gives a grey image, in which conversions of colour keep every level.
    """
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    ramps = [(a - 0.2) / 0.6 * 255 + 16 * b - 8 for a, b in ((x, y), (y, x), (1 - x, y))]
    if turn:
        ramps = ramps[:1] * 3
    return Image.fromarray(np.rint(np.stack(ramps, -1)).clip(0, 255).astype(np.uint8))


def is_random(preprocess: Preprocess) -> bool:
    """Tell whether preprocessing draws random numbers, or gives two results for one image: neither is to be kept.

    One that fails for the synthetic image is not said to be random.
    """
    image, state = probe(*PROBES[-1]), _random_state()
    try:
        once, again = (_as_it_is(preprocess(image)) for _ in range(2))
    except Exception:  # noqa: BLE001 - it is passed on where an image is asked for
        once = again = b""
    return once != again or _random_state() != state


def _random_state() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))


def _solids() -> Iterator[Image.Image]:
    return (Image.new("RGB", (64, 64), (level,) * 3) for level in range(LEVELS))


def _palette(name: str, seen: list[Tensor], preprocess: Preprocess) -> Palette | None:
    """Return the table of a tensor; None where its channels hold other than 256 evenly spaced numbers."""
    if any(value.dtype != torch.float32 for value in seen):
        return None
    for axis in range(-min(value.ndim for value in seen), 0):
        levels = _levels(seen, axis)
        if levels is None:
            continue
        if any(len(one) < LEVELS for one in levels):
            grey = [_tensors(preprocess(probe(*size, turn=1)))[name] for size in PROBES[:2]]
            levels = _levels([*seen, *grey], axis)
        if levels and any(len(one) < LEVELS for one in levels):
            levels = _levels([*seen, *(_tensors(preprocess(solid))[name] for solid in _solids())], axis)
        if levels is None or any(len(one) != LEVELS for one in levels):
            continue
        palette = Palette(axis, np.stack(levels))
        if palette.evenly_spaced:
            return palette
    return None


def _levels(seen: list[Tensor], axis: int) -> list[NDArray[np.float32]] | None:
    """Return the distinct values by channel, if the axis divides by three and none has more than 256."""
    held: list[Any] = [np.empty(0, np.float32)] * CHANNELS
    for value in seen:
        if value.ndim < -axis or value.shape[axis] % CHANNELS:
            return None
        rows = value.numpy().reshape(-1, CHANNELS, _inner(tuple(value.shape), axis))
        for channel in range(CHANNELS):
            new = pd.unique(rows[:, channel].ravel())  # by hashing: numpy sorts millions of values for it
            held[channel] = np.unique(np.concatenate([held[channel], new]))
            if len(held[channel]) > LEVELS:
                return None
    return held


def _inner(shape: tuple[int, ...], axis: int) -> int:
    return math.prod(shape[axis:]) // CHANNELS


def _tensors(made: Any) -> Mapping[str, Tensor]:
    if isinstance(made, Tensor):
        return {_ALONE: made}
    tensors = getattr(made, "tensors", None)
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UnkeptError(f"preprocessing gives a {type(made).__name__}")
    return tensors


def _described(made: Any) -> dict[str, Any]:
    entries = [
        {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
        for name, value in _tensors(made).items()
    ]
    return {"tokens": None if isinstance(made, Tensor) else made.tokens, "tensors": entries}


def _bytes(value: Tensor) -> bytes:
    return value.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def _as_it_is(made: Any) -> bytes:
    return _packed(_described(made), [_bytes(value) for value in _tensors(made).values()])


def _packed(header: Mapping[str, Any], parts: list[bytes]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(4, "little"), text, *parts])


@lru_cache(maxsize=1024)
def _header(text: bytes) -> tuple[int | None, list[tuple[str, torch.dtype, tuple[int, ...], bool, int]]]:
    """Return the number of tokens, and of each tensor its name, type, shape, whether it is coded, and bytes taken."""
    header = json.loads(text)
    entries = []
    for entry in header["tensors"]:
        dtype, shape = getattr(torch, entry["dtype"]), tuple(entry["shape"])
        length = math.prod(shape) * (1 if entry["coded"] else dtype.itemsize)
        entries.append((entry["name"], dtype, shape, entry["coded"], length))
    return header["tokens"], entries
