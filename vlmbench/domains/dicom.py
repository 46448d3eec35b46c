"""One frame of a DICOM file as it is meant to be displayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing, pixel_array

from vlmbench.domains.intensity import display_range, to_8_bit

#: Where "DICM" stands in a DICOM file (PS3.10, section 7.1).
MAGIC_OFFSET = 128


def is_dicom(head: bytes) -> bool:
    """Tell whether the first 132 bytes of a file are those of a DICOM file."""
    return head[MAGIC_OFFSET : MAGIC_OFFSET + 4] == b"DICM"


def decode_dicom(path: Path, frame: int | None, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one frame through the modality LUT and the value-of-interest LUT or window (PS3.3, C.11.1 and C.11.2).

    Grey values are scaled from the range that the window or LUT declares. Without one, data of up to 8 bits keep
    their full range, and deeper data are scaled by `intensity.display_range`, padding left out. MONOCHROME1 is
    inverted.

    Args:
        path: A DICOM file; the preamble may be absent.
        frame: Index from 0; None takes the only frame.
        max_pixels: Refuse frames with more pixels.

    Returns:
        `(H, W)` grey or `(H, W, 3)` RGB.

    Raises:
        ValueError: No pixel data, several frames and none chosen, or too many pixels. Decoding raises other errors too.
    """
    dataset = pydicom.dcmread(path, force=True)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("DICOM file without pixel data")
    pixels = int(dataset.Rows) * int(dataset.Columns)
    if pixels > max_pixels:
        raise ValueError(f"{pixels:,} pixels are more than the {max_pixels:,} that are read")
    index = choose_frame(int(dataset.get("NumberOfFrames") or 1), frame)
    _flatten_functional_groups(dataset, index)
    stored = pixel_array(dataset, index=index)
    if stored.ndim == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _colour(stored, dataset)
    shown = _grey(stored, dataset)
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def choose_frame(count: int, frame: int | None) -> int:
    """Return the index to read of `count` frames or pages.

    Taking the first slice of a volume unasked would give a wrong image for a right label, so several need a choice.

    Raises:
        ValueError: Several frames and none chosen, or one that does not exist.
    """
    if frame is None:
        if count > 1:
            raise ValueError(f"has {count} frames: name one from 0 to {count - 1}, as in 'file#frame=0'")
        return 0
    if not 0 <= frame < count:
        raise ValueError(f"has no frame {frame}: there are {count}, counted from 0")
    return frame


def _flatten_functional_groups(dataset: Any, index: int) -> None:
    """Lift a frame's rescale and window of an enhanced multi-frame object to where single-frame objects hold them."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    for group in shared + own:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in list(group.get(name) or [])[:1]:
                dataset.update(item)


def _colour(stored: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        bits = 8 * stored.dtype.itemsize
    return to_8_bit(stored[..., :3], 0, 2**bits - 1)


def _grey(stored: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:
    values = np.asarray(apply_modality_lut(stored, dataset))
    if dataset.get("VOILUTSequence"):
        return to_8_bit(apply_voi_lut(values, dataset), 0, 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    if _has_window(dataset):
        # The range that the window maps to is what it makes of values far below and far above.
        low, high = (float(x) for x in apply_windowing(np.array([-1e12, 1e12]), dataset))
        return to_8_bit(apply_windowing(values, dataset), low, high)
    bits = int(dataset.get("BitsStored") or 32)
    if bits <= 8:
        first = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
        ends = np.asarray(apply_modality_lut(np.array([first, first + 2**bits - 1]), dataset))
        return to_8_bit(values, float(ends.min()), float(ends.max()))
    padding = dataset.get("PixelPaddingValue")
    inside = values if padding is None else values[stored != padding]
    return to_8_bit(values, *display_range(inside if inside.size else values))


def _has_window(dataset: Any) -> bool:
    """Tell whether the first window is a usable one: files with a width of 0 exist, and mean none."""
    width, centre = dataset.get("WindowWidth"), dataset.get("WindowCenter")
    if width is None or centre is None:
        return False
    first = width[0] if isinstance(width, MultiValue) else width
    linear = dataset.get("VOILUTFunction", "LINEAR") == "LINEAR"
    return float(first) >= 1 if linear else float(first) > 0
