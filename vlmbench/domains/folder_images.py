"""Images that are files below one folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISDIR

from PIL import Image

from vlmbench.domains.base import ImageError
from vlmbench.domains.images import read_image, reason_of

_FRAME = re.compile(r"#frame=(\d+)$")


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

        Of its content, which archives and copies set as they like, and of the file, which the system sets.

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
            raise ImageError(key, reason_of(error)) from error
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
