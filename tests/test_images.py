"""Reading images: what each kind looks like as 8-bit RGB, and how each fault is named."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, SecondaryCaptureImageStorage, generate_uid

from vlmbench.domains.base import ImageError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.images import read_image

RAMP8 = np.tile(np.arange(256, dtype=np.uint8), (8, 1))


def dicom(path: Path, values: np.ndarray, **attributes: Any) -> Path:
    """Write a minimal DICOM file; `attributes` override those that the array implies."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    bits = values.dtype.itemsize * 8
    colour = values.ndim == 3 and values.shape[-1] == 3
    data.Rows, data.Columns = values.shape[:2] if colour else values.shape[-2:]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3 and not colour:
        data.NumberOfFrames = values.shape[0]
    data.PixelData = values.tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path, **arguments: Any) -> np.ndarray:
    image = read_image(path, **arguments)
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all(), "a grey file must give grey pixels"
    return pixels[..., 0]


# --- ordinary files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "gif", "webp"])
def test_8_bit_grey_is_kept_value_by_value(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP8).save(path, lossless=True)  # only WebP knows the word
    np.testing.assert_array_equal(grey(path), RAMP8)


def test_16_bit_png_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)  # 12 bits in a 16-bit file
    Image.fromarray(values).save(tmp_path / "a.png")
    shown = grey(tmp_path / "a.png")
    assert shown[0, 0] == 0
    assert shown[-1, -1] == 255
    assert abs(int(shown[32, 0]) - 128) <= 2, "the middle of the range must be mid grey"
    assert len(np.unique(shown)) > 250


def test_one_bright_pixel_does_not_take_the_scale(tmp_path: Path) -> None:
    values = np.tile(np.linspace(0, 1000, 100).astype(np.uint16), (100, 1))
    values[0, 0] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    assert grey(tmp_path / "a.png")[50].max() == 255


def test_bright_spot_on_even_ground_is_still_seen(tmp_path: Path) -> None:
    values = np.full((100, 100), 300, np.uint16)
    values[0, 0] = 900
    Image.fromarray(values).save(tmp_path / "a.png")
    shown = grey(tmp_path / "a.png")
    assert (shown[0, 0], shown[5, 5]) == (255, 0)


def test_flat_16_bit_image_is_black(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(tmp_path / "a.png")
    assert grey(tmp_path / "a.png").max() == 0


def test_16_bit_tiff_with_white_as_zero_is_inverted(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 25600, 100, dtype=np.uint16), (8, 1))
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="miniswhite")
    shown = grey(tmp_path / "a.tif")
    assert shown[0, 0] > 250
    assert shown[0, -1] < 5


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16", "int32", "uint32"])
def test_deep_tiff_spans_the_grey_scale(tmp_path: Path, dtype: str) -> None:
    values = np.linspace(0 if dtype == "uint32" else -1000, 3000, 64 * 64).reshape(64, 64).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)
    shown = grey(tmp_path / "a.tif")
    assert (shown[0, 0], shown[-1, -1]) == (0, 255)
    assert abs(int(shown[32, 0]) - 128) <= 2


def test_float_tiff_with_gaps_shows_the_rest(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    values[:4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    shown = grey(tmp_path / "a.tif")
    assert shown[0].max() == 0
    assert shown[-1].max() == 255
    tifffile.imwrite(tmp_path / "b.tif", np.full((8, 8), np.nan, np.float32))
    with pytest.raises(ImageError, match="no pixel has a finite value"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_float_rgb_tiff_that_pillow_has_no_mode_for(tmp_path: Path, planar: str) -> None:
    values = np.zeros((16, 16, 3), np.float32)
    values[:8, :, 0] = 1.0
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    pixels = np.asarray(read_image(tmp_path / "a.tif"))
    assert tuple(pixels[0, 0]) == (255, 0, 0)
    assert tuple(pixels[-1, 0]) == (0, 0, 0)


def test_16_bit_colour_keeps_its_high_bytes(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 3), np.uint16)
    values[..., 1] = 0x8000
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    assert tuple(np.asarray(read_image(tmp_path / "a.tif"))[0, 0]) == (0, 128, 0)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (np.linspace(0, 2**32 - 1, 256).astype(np.uint32), {}),
        (np.linspace(-128, 127, 256).astype(np.int8), {}),
        (np.linspace(1, 0, 256), {"photometric": "miniswhite"}),
    ],
)
def test_tiff_layouts_that_pillow_takes_for_others(tmp_path: Path, values: np.ndarray, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.tile(values, (8, 1)), **options)
    shown = grey(tmp_path / "a.tif")[0].astype(int)
    assert (shown[0], shown[-1]) == (0, 255)
    assert (np.diff(shown) >= 0).all()


def test_16_bit_colour_in_planes_is_that_of_pixels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (16, 16, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", np.moveaxis(values, -1, 0), photometric="rgb", planarconfig="separate")
    a, b = (np.asarray(read_image(tmp_path / name)) for name in ("a.tif", "b.tif"))
    np.testing.assert_array_equal(a, values >> 8)
    np.testing.assert_array_equal(b, a)


def test_volume_in_one_page_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))
    with pytest.raises(ImageError, match=r"shape \(16, 32, 32\)"):
        read_image(tmp_path / "a.tif")


def test_transparency_is_composited_on_black(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, 0, 3], rgba[0, 1, 3] = 255, 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = np.asarray(read_image(tmp_path / "a.png"))
    assert tuple(pixels[0, 0]) == (200, 0, 0)
    assert abs(int(pixels[0, 1, 0]) - 100) <= 1
    assert tuple(pixels[1, 1]) == (0, 0, 0)


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([250, 10, 20, 30, 240, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=0)
    assert [tuple(p) for p in np.asarray(read_image(tmp_path / "a.png"))[0]] == [(250, 10, 20), (30, 240, 50)]
    assert [tuple(p) for p in np.asarray(read_image(tmp_path / "b.png"))[0]] == [(0, 0, 0), (30, 240, 50)]


def test_cmyk_jpeg_and_bilevel_tiff(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = np.asarray(read_image(tmp_path / "a.jpg"))[8, 8]
    assert red > 240
    assert max(green, blue) < 15
    Image.fromarray(RAMP8 > 127).save(tmp_path / "a.tif")
    assert set(np.unique(grey(tmp_path / "a.tif"))) == {0, 255}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (0, 0, 32, 32))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown rotated by 90 degrees clockwise
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    shown = np.asarray(read_image(tmp_path / f"a.{suffix}"))[..., 0]
    assert shown.shape == (64, 32)
    assert shown[:24].min() > 200, "the left side must have come to the top"
    assert shown[40:].max() < 55


# --- several frames ---------------------------------------------------------------------------------------------


def test_several_pages_are_refused_until_one_is_named(tmp_path: Path) -> None:
    pages = [Image.new("L", (4, 4), level) for level in (10, 20, 30)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match=r"has 3 frames: name one from 0 to 2"):
        read_image(tmp_path / "a.tif")
    assert grey(tmp_path / "a.tif", frame=2)[0, 0] == 30
    with pytest.raises(ImageError, match="has no frame 3"):
        read_image(tmp_path / "a.tif", frame=3)
    source = FolderImages(tmp_path)
    assert source.load("a.tif#frame=1").getpixel((0, 0)) == (20, 20, 20)


def test_thumbnail_page_is_not_a_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.full((32, 32), 77, np.uint8))
        file.write(np.full((8, 8), 5, np.uint8), subfiletype=1)
    assert grey(tmp_path / "a.tif").shape == (32, 32)


def test_animated_gif_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="has 2 frames"):
        read_image(tmp_path / "a.gif")


def test_previews_of_a_camera_do_not_count(tmp_path: Path) -> None:
    image, preview = Image.new("L", (32, 32), 90), Image.new("L", (8, 8), 10)
    image.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert grey(tmp_path / "a.jpg").shape == (32, 32)


def test_multi_frame_dicom(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", np.stack([np.full((4, 4), v, np.uint8) for v in (1, 2, 3)]))
    with pytest.raises(ImageError, match="has 3 frames"):
        read_image(path)
    assert grey(path, frame=1)[0, 0] == 2
    assert FolderImages(tmp_path).load("a.dcm#frame=2").getpixel((0, 0)) == (3, 3, 3)


# --- DICOM ------------------------------------------------------------------------------------------------------


def test_dicom_8_bit_without_window_keeps_its_values(tmp_path: Path) -> None:
    np.testing.assert_array_equal(grey(dicom(tmp_path / "a", RAMP8)), RAMP8)


def test_dicom_is_told_by_content_not_by_suffix(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RAMP8)
    for name in ("IM0001", "really_dicom.png"):
        (tmp_path / name).write_bytes(path.read_bytes())
        np.testing.assert_array_equal(grey(tmp_path / name), RAMP8)
    Image.fromarray(RAMP8).save(tmp_path / "really_png.dcm", format="PNG")
    np.testing.assert_array_equal(grey(tmp_path / "really_png.dcm"), RAMP8)


def test_dicom_without_preamble_needs_its_suffix(tmp_path: Path) -> None:
    data = dicom(tmp_path / "a.dcm", RAMP8).read_bytes()
    (tmp_path / "old.dcm").write_bytes(data[132:])
    np.testing.assert_array_equal(grey(tmp_path / "old.dcm"), RAMP8)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RAMP8, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(grey(path), 255 - RAMP8)


def test_dicom_window_applies_to_rescaled_values(tmp_path: Path) -> None:
    # Hounsfield units -1000, -160, 40, 240, 1000 stored with the usual offset; window 40/400 spans -160..240.
    stored = np.array([[24, 864, 1064, 1264, 2024]], np.uint16)
    window = {"WindowCenter": 40, "WindowWidth": 400}
    path = dicom(
        tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=-1024, BitsStored=12, HighBit=11, **window
    )
    shown = grey(path)[0].astype(int)
    assert list(shown[[0, 1, 3, 4]]) == [0, 0, 255, 255]
    assert abs(shown[2] - 128) <= 1


def test_dicom_window_on_signed_and_sigmoid_data(tmp_path: Path) -> None:
    stored = np.array([[-2000, 0, 2000]], np.int16)
    path = dicom(tmp_path / "a.dcm", stored, WindowCenter=[0.5, 100], WindowWidth=[1001, 7])
    assert list(grey(path)[0]) == [0, 128, 255]
    path = dicom(tmp_path / "b.dcm", stored, WindowCenter=0, WindowWidth=100, VOILUTFunction="SIGMOID")
    assert list(grey(path)[0]) == [0, 128, 255]


def test_dicom_elements_without_a_value_count_as_absent(tmp_path: Path) -> None:
    empty = {"RescaleSlope": None, "RescaleIntercept": None, "VOILUTFunction": ""}
    stored = np.array([[0, 2048, 4095]], np.uint16)
    path = dicom(tmp_path / "a.dcm", stored, WindowCenter=2048, WindowWidth=4096, **empty)
    assert list(grey(path)[0]) == [0, 128, 255]
    data = pydicom.dcmread(path)
    data.PixelData = b""
    data.save_as(tmp_path / "b.dcm")
    with pytest.raises(ImageError, match="without pixel data"):
        read_image(tmp_path / "b.dcm")


def test_dicom_window_where_values_fall_with_what_is_stored(tmp_path: Path) -> None:
    rescale = {"RescaleSlope": -1, "RescaleIntercept": 4095, "WindowCenter": 2048, "WindowWidth": 4096}
    path = dicom(tmp_path / "a.dcm", np.array([[0, 2047, 4095]], np.uint16), **rescale)
    assert list(grey(path)[0]) == [255, 128, 0]


def test_dicom_window_on_floats(tmp_path: Path) -> None:
    data = pydicom.dcmread(dicom(tmp_path / "a.dcm", np.zeros((1, 3), np.uint32)))
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(data, name)
    data.FloatPixelData = np.array([-1, 0.5, 2], np.float32).tobytes()
    data.WindowCenter, data.WindowWidth, data.VOILUTFunction = 0.5, 1, "LINEAR_EXACT"
    data.save_as(tmp_path / "b.dcm")
    assert list(grey(tmp_path / "b.dcm")[0]) == [0, 128, 255]


def test_dicom_lut(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [4, 0, 8]
    item.LUTData = [255, 100, 50, 0]
    item["LUTDescriptor"].VR = "US"
    item["LUTData"].VR = "US"
    path = dicom(tmp_path / "a.dcm", np.array([[0, 1, 2, 3, 9]], np.uint16), VOILUTSequence=Sequence([item]))
    assert list(grey(path)[0]) == [255, 100, 50, 0, 0]


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 0, "WindowWidth": 0}])
def test_deep_dicom_without_usable_window_is_scaled_without_its_padding(tmp_path: Path, window: dict[str, int]) -> None:
    values = np.linspace(1000, 2000, 64 * 64).reshape(64, 64).astype(np.uint16)
    values[:16] = 65535
    shown = grey(dicom(tmp_path / "a.dcm", values, PixelPaddingValue=65535, **window))
    assert shown[20].max() < 90, "the padding must not have pushed the tissue to the dark end or to white"
    assert shown[-1].max() == 255


def test_enhanced_dicom_takes_the_window_of_its_frame(tmp_path: Path) -> None:
    groups = []
    for centre in (100, 1000):
        item, voi = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = centre, 100
        item.FrameVOILUTSequence = Sequence([voi])
        groups.append(item)
    values = np.full((2, 4, 4), 500, np.uint16)
    path = dicom(tmp_path / "a.dcm", values, PerFrameFunctionalGroupsSequence=Sequence(groups))
    assert grey(path, frame=0)[0, 0] == 255
    assert grey(path, frame=1)[0, 0] == 0


def test_colour_dicom(tmp_path: Path) -> None:
    values = np.zeros((4, 6, 3), np.uint8)
    values[..., 0] = 200
    image = read_image(dicom(tmp_path / "a.dcm", values))
    assert image.size == (6, 4)
    assert image.getpixel((0, 0)) == (200, 0, 0)


def test_compressed_dicom(tmp_path: Path) -> None:
    data = pydicom.dcmread(dicom(tmp_path / "a.dcm", RAMP8))
    data.compress(RLELossless)
    data.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(grey(tmp_path / "b.dcm"), RAMP8)


def test_compression_without_a_decoder_is_named(tmp_path: Path) -> None:
    if get_decoder(JPEGLSLossless).is_available:
        pytest.skip("a decoder of JPEG-LS is installed")
    data = pydicom.dcmread(dicom(tmp_path / "a.dcm", RAMP8))
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.PixelData = encapsulate([bytes(100)])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "b.dcm")
    with pytest.raises(ImageError, match=r"compressed as JPEG-LS .*, for which no decoder is installed: pip install"):
        read_image(tmp_path / "b.dcm")


@pytest.mark.parametrize("implicit", [True, False])
def test_dicom_without_file_meta_information(tmp_path: Path, implicit: bool) -> None:
    bare = Dataset()
    bare.update(pydicom.dcmread(dicom(tmp_path / "a.dcm", RAMP8)))
    pydicom.dcmwrite(tmp_path / "old.dcm", bare, implicit_vr=implicit, little_endian=True)
    np.testing.assert_array_equal(grey(tmp_path / "old.dcm"), RAMP8)


def test_palette_dicom(tmp_path: Path) -> None:
    luts: dict[str, Any] = {}
    for colour, data in (("Red", [0, 255]), ("Green", [128, 0]), ("Blue", [0, 0])):
        luts[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        luts[f"{colour}PaletteColorLookupTableData"] = struct.pack("<2H", *(value * 257 for value in data))
    values = np.array([[0, 1]], np.uint8)
    image = read_image(dicom(tmp_path / "a.dcm", values, PhotometricInterpretation="PALETTE COLOR", **luts))
    assert image.getpixel((0, 0)) == (0, 128, 0)
    assert image.getpixel((1, 0)) == (255, 0, 0)


def test_dicom_without_pixels_or_too_large(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RAMP8, PixelData=None)
    with pytest.raises(ImageError, match=r"a\.dcm: "):
        read_image(path)
    with pytest.raises(ImageError, match=r"4,\d{3},\d{3},\d{3} pixels are more than"):
        read_image(dicom(tmp_path / "b.dcm", RAMP8, Rows=65535, Columns=65535))


# --- faults -----------------------------------------------------------------------------------------------------


def test_missing_empty_folder_and_text(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is not an image, but a message from a web server " * 5)
    (tmp_path / "short.dcm").write_bytes(b"\0" * 20)
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "none.png": "no such file",
        "empty.png": "the file is empty",
        "text.png": "not a DICOM, PNG",
        "short.dcm": "without pixel data",
        "folder": "a folder",
    }.items():
        with pytest.raises(ImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert caught.value.key == str(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "dcm"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    dicom(path, noise) if suffix == "dcm" else Image.fromarray(noise).save(path)
    data = path.read_bytes()
    for share in (0.6, 0.3):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError):
            read_image(path)


def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"pixels"):
            read_image(path)


def test_warnings_are_muted_in_threads_and_filters_are_put_back(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", RAMP8)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_image(path) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_keys_stay_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "linked").mkdir()
    for place in (tmp_path, tmp_path / "root", tmp_path / "linked"):
        Image.fromarray(RAMP8).save(place / "a.png")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "linked")
    source = FolderImages(tmp_path / "root")
    for key in ("../a.png", "x/../../a.png", str(tmp_path / "a.png"), "C:/a.png", "..", "/etc/passwd"):
        with pytest.raises(ImageError, match=r"lies outside|an absolute path"):
            source.load(key)
    assert source.load("a.png").size == (256, 8)
    assert source.load("link/a.png").size == (256, 8)
    free = FolderImages(tmp_path / "root", allow_absolute=True)
    assert free.load(str(tmp_path / "a.png")).size == (256, 8)
    with pytest.raises(ImageError, match=r"^b\.png: no such file$"):
        source.load("b.png")


def _encode(kind: str, folder: Path) -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (48, 48), np.uint8)
    if kind == "dcm":
        window = {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": -10}
        return dicom(folder / "seed.dcm", noise.astype(np.uint16) * 16, **window).read_bytes()
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(noise).save(buffer, format={"jpg": "JPEG"}.get(kind, kind.upper()), exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpg", "dcm", "tiff", "webp", "bmp"])
def test_corrupt_bytes_give_an_image_or_an_image_error(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = _encode(kind, tmp_path) if kind != "bmp" else _bmp()
    rng = np.random.default_rng(2)
    path = tmp_path / f"a.{kind}"
    changes: list[Callable[[bytearray], None]] = [
        lambda broken: _flip(broken, rng, len(broken)),
        lambda broken: _flip(broken, rng, 400),  # headers are where decoders are led astray
        lambda broken: broken.__delitem__(slice(int(rng.integers(len(broken))), None)),
    ]
    outcomes: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for case in range(200):
            broken = bytearray(data)
            changes[case % 3](broken)
            path.write_bytes(broken)
            try:
                outcomes[read_image(path).mode] += 1
            except ImageError as error:
                outcomes["reason" if error.reason else "no reason"] += 1
    assert set(outcomes) <= {"RGB", "reason"}
    assert outcomes["reason"] > 0
    assert not [str(warning.message) for warning in caught]
    assert capfd.readouterr().err == ""


def _bmp() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RAMP8).save(buffer, format="BMP")
    return buffer.getvalue()


def _flip(data: bytearray, rng: np.random.Generator, within: int) -> None:
    for position in rng.integers(0, min(within, len(data)), size=int(rng.integers(1, 20))):
        data[position] = int(rng.integers(256))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="an administrator may read every file")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RAMP8).save(path)
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(path)
