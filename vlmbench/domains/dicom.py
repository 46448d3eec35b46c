"""One frame of a DICOM file as it is meant to be displayed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi_lut,
    apply_windowing,
    get_decoder,
    pixel_array,
)
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from vlmbench.domains.intensity import display_range, to_8_bit

#: Where "DICM" stands in a DICOM file (PS3.10, section 7.1).
MAGIC_OFFSET = 128
_WINDOW_BITS = 16
#: Elements that some writers and anonymisers leave in place without a value, which pydicom takes for present.
_MAY_BE_EMPTY = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction")


def is_dicom(head: bytes) -> bool:
    """Tell whether the first 132 bytes of a file are those of a DICOM file."""
    return head[MAGIC_OFFSET : MAGIC_OFFSET + 4] == b"DICM"


def decode_dicom(file: Path | BytesIO, frame: int | None, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one frame through the modality LUT and the value-of-interest LUT or window (PS3.3, C.11.1 and C.11.2).

    Grey values are scaled from the range that the window or LUT declares. Without one, data of up to 8 bits keep
    their full range, and deeper data are scaled by `intensity.display_range`, padding left out. MONOCHROME1 is
    inverted.

    Args:
        file: A DICOM file; preamble and file meta information may be absent.
        frame: Index from 0; None takes the only frame.
        max_pixels: Refuse frames with more pixels.

    Returns:
        `(H, W)` grey or `(H, W, 3)` RGB.

    Raises:
        ValueError: No pixel data, no decoder for their compression, several frames and none chosen, or too many pixels.
            Decoding raises other errors too.
    """
    dataset = pydicom.dcmread(file, force=True)
    if not any(dataset.get(name) for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("DICOM file without pixel data")
    _check_decoder(dataset)
    pixels = int(dataset.Rows) * int(dataset.Columns)
    if pixels > max_pixels:
        raise ValueError(f"{pixels:,} pixels are more than the {max_pixels:,} that are read")
    index = choose_frame(int(dataset.get("NumberOfFrames") or 1), frame)
    _flatten_functional_groups(dataset, index)
    for name in _MAY_BE_EMPTY:
        if name in dataset and dataset[name].is_empty:
            del dataset[name]
    stored = pixel_array(dataset, index=index)
    if stored.ndim == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _colour(stored, dataset)
    shown = _grey(stored, dataset)
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def _check_decoder(dataset: Any) -> None:
    """Check that the pixels can be decoded here, and give a dataset without file meta the encoding it was read by.

    Raises:
        ValueError: They are compressed in a way for which no decoder is installed.
    """
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    syntax = dataset.file_meta.TransferSyntaxUID
    if not get_decoder(syntax).is_available:
        raise ValueError(
            f"compressed as {syntax.name}, for which no decoder is installed: pip install 'pylibjpeg[all]', or "
            "decompress the file"
        )


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
        return to_8_bit(apply_windowing(values, _window(dataset)), 0, 2**_WINDOW_BITS - 1)
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


def _window(dataset: Any) -> Dataset:
    """Return a dataset of the window alone.

    pydicom maps a window to the range of the file's own rescaled values; 16 bits do as well, and they are there for
    floats, which have no stored bits, and do not run backwards where the slope is negative.
    """
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = _WINDOW_BITS, 0
    for name in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if name in dataset:
            window[name] = dataset[name]
    return window
