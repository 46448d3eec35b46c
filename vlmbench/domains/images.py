"""Reading an image file of any kind that medical data come in, as 8-bit RGB."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISDIR
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vlmbench.domains.base import ImageError
from vlmbench.domains.dicom import choose_frame, decode_dicom, is_dicom
from vlmbench.domains.intensity import display_range, to_8_bit

#: The decoders that are tried. A list, because Pillow's others include one that starts a PostScript interpreter.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")
#: Refused above, before decoding: twice Pillow's own warning threshold, which is where Pillow refuses too.
MAX_PIXELS = 178_956_970
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_File = Path | io.BytesIO
_FRAME = re.compile(r"#frame=(\d+)$")

# What these have to say of a broken file is in the ImageError; they log it as well, to stderr where nothing is set up.
for _name in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def read_image(path: str | os.PathLike[str], *, frame: int | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB.

    The kind is told by content, never by suffix alone: DICOM, PNG, JPEG, TIFF, BMP, WebP, GIF, PPM and JPEG 2000.
    EXIF orientation is applied and transparency is composited on black. Grey data deeper than 8 bits and floats are
    scaled by `intensity.display_range`, because neither PNG nor TIFF declares a display range; DICOM declares one and
    is shown as `dicom.decode_dicom` says. Colour of 16 bits keeps its high bytes. Warnings of the decoders are muted;
    only libtiff's own, of broken compressed TIFF files, go straight to stderr from C.

    Args:
        path: File to read.
        frame: Index from 0 in a file of several frames or pages. None takes the only one; a file that has several is
            refused then. Reduced-resolution pages of a TIFF and the previews of a camera's MPO do not count.

    Raises:
        ImageError: The file is missing, empty, truncated, too large, or not an image that can be decoded.
    """
    path = Path(path)
    try:
        with _quiet(), np.errstate(all="ignore"):
            return _read(path, frame)
    except Exception as error:  # decoders raise nearly any type on broken input
        raise ImageError(str(path), _reason(error)) from error


def decode_image(data: bytes, key: str) -> Image.Image:
    """Read the bytes of an image file as `read_image` reads a file with a single frame.

    Args:
        data: The file's content.
        key: What messages call the image.

    Raises:
        ImageError: Empty, truncated, too large, or not an image that can be decoded.
    """
    try:
        with _quiet(), np.errstate(all="ignore"):
            return _decode(io.BytesIO(data), data[:132], None)
    except Exception as error:  # decoders raise nearly any type on broken input
        raise ImageError(key, _reason(error)) from error


class FolderImages:
    """Images below one folder; the key is the path relative to it, with forward slashes.

    A key may end in `#frame=N` to name one frame, from 0, of a multi-frame DICOM or multi-page TIFF.

    Args:
        root: The folder.
        allow_absolute: Also take absolute paths, and paths that leave the folder by `..`.
    """

    def __init__(self, root: str | os.PathLike[str], *, allow_absolute: bool = False) -> None:
        self.root = Path(root)
        self.allow_absolute = allow_absolute

    def path(self, key: str) -> Path:
        """Return where an image lies, whether or not it exists.

        Raises:
            ImageError: The key leaves the folder. Links inside the folder are followed wherever they lead: the user
                made them, while a key may come with a downloaded table.
        """
        return Path(self._located(key))

    def _located(self, key: str) -> str:
        """Return the path as a text; a path object costs more than to look for the file."""
        name = _FRAME.sub("", key) if "#" in key else key
        if name.startswith("/") or ".." in name or "\\" in name or ":" in name:
            absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
            leaves = os.path.normpath(name).split(os.sep)[0] == os.pardir
            if (absolute or leaves) and not self.allow_absolute:
                fault = "is an absolute path" if absolute else "lies outside"
                raise ImageError(
                    key, f"{fault}; images are taken from below {self.root} alone, by paths relative to it"
                )
        return os.path.join(self.root, name)

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def size(self, key: str) -> int:
        """Return the file's size in bytes.

        Raises:
            ImageError: The key leaves the folder, or there is no such file.
        """
        return self._stat(key).st_size

    def stamp(self, key: str) -> str:
        """Return the key with the folder, and the file's size and times of change.

        That of the content is set at will by whatever unpacks or copies; that of the file is the system's.

        Raises:
            ImageError: The key leaves the folder, or there is no such file.
        """
        stat = self._stat(key)
        return f"{self.root.resolve() / key}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of the file's bytes and of the frame that the key names.

        Raises:
            ImageError: The key leaves the folder, or the file is missing or cannot be read.
        """
        frame = _FRAME.search(key)
        try:
            found = hashlib.sha256(self.path(key).read_bytes())
        except (OSError, ValueError) as error:
            raise ImageError(key, _reason(error)) from error
        found.update(frame[0].encode() if frame else b"")
        return found.digest()

    def _stat(self, key: str) -> os.stat_result:
        try:
            stat = os.stat(self._located(key))
        except FileNotFoundError as error:
            raise ImageError(key, "no such file") from error
        except (OSError, ValueError) as error:  # a name that no file can have
            raise ImageError(key, str(error)) from error
        if S_ISDIR(stat.st_mode):
            raise ImageError(key, "a folder, not a file")
        return stat

    def load(self, key: str) -> Image.Image:
        """Return the image as 8-bit RGB.

        Raises:
            ImageError: The key leaves the folder, or the image is missing or cannot be decoded.
        """
        frame = _FRAME.search(key)
        path = self.path(key)
        try:
            return read_image(path, frame=int(frame[1]) if frame else None)
        except ImageError as error:
            raise ImageError(key, error.reason) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not a DICOM, PNG, JPEG, TIFF, BMP, WebP or GIF file, or its header is broken"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    # The messages of these two are written for users; those of others, such as KeyError, need their type beside them.
    return text if text and isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {text}"


def _read(path: Path, frame: int | None) -> Image.Image:
    if path.is_dir():
        raise ValueError("a folder, not a file")
    with path.open("rb") as file:
        head = file.read(132)
    try:
        return _decode(path, head, frame)
    except UnidentifiedImageError:
        if path.suffix.lower() in (".dcm", ".dicom"):  # without the preamble there is nothing else to tell it by
            return _read_dicom(path, frame)
        raise


def _decode(file: _File, head: bytes, frame: int | None) -> Image.Image:
    if not head:
        raise ValueError("the file is empty")
    if is_dicom(head):
        return _read_dicom(file, frame)
    try:
        return _read_with_pillow(file, frame)
    except UnidentifiedImageError:
        if head[:4] in _TIFF_MAGIC:
            return _read_with_tifffile(file, frame)
        raise


def _read_dicom(file: _File, frame: int | None) -> Image.Image:
    return Image.fromarray(decode_dicom(file, frame, MAX_PIXELS)).convert("RGB")


def _read_with_pillow(file: _File, frame: int | None) -> Image.Image:
    with Image.open(file, formats=FORMATS) as image:
        _check_size(image.width * image.height)
        pages = _full_pages(image)
        image.seek(pages[choose_frame(len(pages), frame)])
        _check_size(image.width * image.height)
        if image.format == "TIFF" and _is_misread(image.tag_v2):  # type: ignore[attr-defined]
            return _read_with_tifffile(file, frame)
        image.load()
        white_is_zero = image.format == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
        return _to_rgb(ImageOps.exif_transpose(image), white_is_zero)


def _is_misread(tags: Mapping[int, Any]) -> bool:
    """Tell whether a TIFF page is of a layout that Pillow takes for another one, without an error."""
    bits = max(tags.get(258, (1,)))
    kind = max(tags.get(339, (1,)))  # of numbers: 1 unsigned, 2 signed, 3 float
    planes_of_16_bits = tags.get(284, 1) == 2 and bits == 16
    volume = tags.get(32997, 1) > 1  # several slices in one page, of which Pillow shows the first
    return planes_of_16_bits or volume or (bits, kind) in ((8, 2), (32, 1))


def _full_pages(image: Image.Image) -> list[int]:
    """Return the indices of the frames that are images of their own."""
    count = int(getattr(image, "n_frames", 1))
    if image.format == "MPO":  # a camera's JPEG with previews behind the picture
        return [0]
    if image.format != "TIFF" or count == 1:
        return list(range(count))
    pages = []
    for index in range(count):
        image.seek(index)
        if not int(image.tag_v2.get(254, 0)) & 0b101:  # type: ignore[attr-defined] # neither thumbnail nor mask
            pages.append(index)
    return pages


def _read_with_tifffile(file: _File, frame: int | None) -> Image.Image:
    """Read the TIFF layouts that Pillow has no mode for, such as float RGB, or gets wrong."""
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        pages: list[Any] = [page for page in tiff.pages if not page.is_reduced]
        page = pages[choose_frame(len(pages), frame)]
        _check_size(page.imagelength * page.imagewidth)
        values = page.asarray()
        if page.axes == "SYX":
            values = np.moveaxis(values, 0, -1)
        white_is_zero = page.photometric == 0
    if not values.size:
        raise ValueError("the TIFF's header is broken or cut off: it has no pixels")
    if values.ndim == 3 and values.shape[-1] in (3, 4):
        values = values[..., :3]
    elif values.ndim != 2:
        raise ValueError(f"a TIFF of shape {values.shape} is neither grey nor RGB")
    if values.ndim == 3 and values.dtype == np.uint16:
        return Image.fromarray((values >> 8).astype(np.uint8))
    shown = _scale(values)
    return Image.fromarray(255 - shown if white_is_zero else shown).convert("RGB")


def _check_size(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise ValueError(f"{pixels:,} pixels are more than the {MAX_PIXELS:,} that are read")


def _scale(values: NDArray[Any]) -> NDArray[np.uint8]:
    return to_8_bit(values, *display_range(values))


def _to_rgb(image: Image.Image, white_is_zero: bool) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # convert("RGB") would clip these at 255 and leave a white sheet.
        shown = _scale(np.asarray(image))
        return Image.fromarray(255 - shown if white_is_zero else shown).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    # A copy, so that nothing of the file (palette, EXIF, handles) stays with the pixels.
    return Image.fromarray(np.asarray(image.convert("RGB")))


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters: warnings.catch_warnings[None] | None = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute decoders' warnings while any thread decodes.

    `warnings.catch_warnings` alone is not for threads: two that overlap restore each other's filters, and the last
    one out leaves the process mute. Counting lets only the first enter and the last leave.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.simplefilter("ignore")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _quiet_filters is not None:
                _quiet_filters.__exit__(None, None, None)
