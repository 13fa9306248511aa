from __future__ import annotations

import importlib.util
import io

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps

from nearfar.modalities.image import decode
from nearfar.modalities.image.samples import open_images

from .images import encoded, noise, smooth


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def opened(tmp_path, image: Image.Image, kind: str = "PNG", **save) -> np.ndarray:
    """The only image of a folder, C x S x S at its own size."""
    image.save(tmp_path / f"a.{kind.lower()}", **save)
    images = open_images(tmp_path, side=image.width)
    assert not images.skipped
    return images.pixels(torch.tensor([0]))[0].numpy().astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "side"), [("JPEG", 16), ("JPEG", 40), ("PNG", 40)])
def test_exif_orientation_is_applied(orientation, kind, side):
    image = smooth(40, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    square, aspect = decode.square(data, side, 3)
    assert aspect == upright.width / upright.height
    assert np.abs(square.transpose(1, 2, 0) - pixels(upright.resize((side, side)))).max() <= 8
    assert np.array_equal(pixels(decode.image(data)), pixels(upright))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_image_of_the_wanted_size_is_not_resampled(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode in ("RGB", "L"):
        data = encoded(noise(32, 32, mode=mode), "JPEG", exif)
        wanted = pixels(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        square, aspect = decode.square(data, 32, 3)
        assert np.array_equal(square.transpose(1, 2, 0), wanted)
        assert aspect == 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_opencv_gives_the_pixels_of_pillow(mode, monkeypatch):
    pytest.importorskip("cv2", reason="the extra 'fast' is not installed")
    images = [encoded(noise(32, 32, seed, mode), "JPEG") for seed in range(20)]
    for channels in (3, 1) if mode == "L" else (3,):
        fast = [decode._fast_jpeg(data, 32, channels) for data in images]
        with monkeypatch.context() as patch:
            patch.setattr(decode, "opencv", lambda: None)
            slow = [decode.square(data, 32, channels)[0] for data in images]
        assert np.array_equal(np.stack(fast), np.stack(slow))


def test_opencv_is_not_asked_what_it_gets_wrong():
    data = encoded(noise(32, 32), "JPEG")
    cut = data[: len(data) // 2]
    cmyk = encoded(noise(32, 32, mode="CMYK"), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(noise(32, 32), "JPEG", exif)
    assert [decode._fast_jpeg(d, 32, 3) for d in (cut, cmyk, turned, encoded(noise(32, 32)))] == [None] * 4
    assert decode._fast_jpeg(data, 31, 3) is None
    assert decode._fast_jpeg(data, 32, 1) is None
    with pytest.raises(OSError, match="truncated"):
        decode.square(cut, 32, 3)


def test_broken_exif_does_not_make_a_image_bad(tmp_path):
    exif = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    found = opened(tmp_path, smooth(100, 100), "JPEG", exif=exif)
    assert found.shape == (3, 100, 100)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = noise(mode=mode)
    bands = [pixels(band) for band in image.split()]
    alpha = bands[-1] / 255
    wanted = np.stack([alpha * band + (1 - alpha) * 255 for band in bands[:-1]])
    assert np.abs(opened(tmp_path, image) - wanted).max() <= 1


@pytest.mark.parametrize("transparency", [0, bytes([0, 255, 128])])
def test_a_palette_with_transparency_is_laid_on_white(tmp_path, transparency):
    image = Image.new("P", (3, 3))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2] * 3)
    found = opened(tmp_path, image, transparency=transparency)[:, 0].T.tolist()
    last = [0, 0, 255] if transparency == 0 else [127, 127, 255]
    assert found[:2] == [[255, 255, 255], [0, 255, 0]]
    assert found[2] == pytest.approx(last, abs=1)


def test_a_palette_of_grays_is_gray(tmp_path):
    image = Image.new("P", (3, 3))
    image.putpalette([9, 9, 9, 90, 90, 90, 200, 200, 200])
    image.putdata([0, 1, 2] * 3)
    assert opened(tmp_path, image)[:, 0].tolist() == [[9, 90, 200]]


def test_transparent_color_of_an_rgb_png(tmp_path):
    image = Image.new("RGB", (2, 2), (10, 20, 30))
    image.putpixel((0, 0), (1, 2, 3))
    assert opened(tmp_path, image, transparency=(1, 2, 3))[:, 0].T.tolist() == [[255, 255, 255], [10, 20, 30]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(tmp_path, kind):
    image = smooth(64, 64).convert("CMYK")
    assert np.abs(opened(tmp_path, image, kind) - pixels(smooth(64, 64)).transpose(2, 0, 1)).mean() < 3


def test_ycck_becomes_rgb(tmp_path):
    """Pillow cannot write YCCK, but an Adobe segment with transform 2 makes a CMYK JPEG one."""
    data = encoded(Image.new("CMYK", (64, 64), (0, 0, 0, 0)), "JPEG")
    at = data.index(b"Adobe") + 11
    (tmp_path / "a.jpg").write_bytes(data[:at] + b"\x02" + data[at + 1 :])
    images = open_images(tmp_path)
    assert images.channels == 3
    assert not images.skipped


def test_sixteen_bit_gray_is_scaled(tmp_path):
    deep = np.array([[0, 257, 65535], [32896, 128, 129], [65406, 65407, 12345]], np.uint16)
    found = opened(tmp_path, Image.fromarray(deep))
    assert np.array_equal(found[0], np.round(deep / 257))


@pytest.mark.parametrize("top", [1, 255])
def test_float_gray_from_0_to_1_or_to_255(tmp_path, top):
    deep = np.linspace(0, top, 16, dtype=np.float32).reshape(4, 4)
    assert np.array_equal(opened(tmp_path, Image.fromarray(deep), "TIFF")[0], np.round(deep * 255 / top))


@pytest.mark.parametrize(
    ("deep", "why"),
    [([[-1.0, 2]], "wanted: 0 to 1, or 0 to 255"), ([[0, 1000]], "--white"), ([[np.nan, 1]], "1 of its 2 .* NaN")],
)
def test_float_gray_of_unknown_range_is_bad(deep, why):
    deep = np.array(deep)
    with pytest.raises(ValueError, match=why):
        decode.square(encoded(Image.fromarray(deep.astype(np.float32)), "TIFF"), 2, 1)


def test_one_bit_is_gray(tmp_path):
    image = noise(mode="L").convert("1")
    assert np.array_equal(opened(tmp_path, image)[0], 255 * pixels(image))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    first = opened(tmp_path, frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert first[:, 4, 4].tolist() == [255, 0, 0]
    noise(8, 8).save(tmp_path / f"still.{kind.lower()}", **options)
    notes = open_images(tmp_path).notes
    assert len(notes) == 1
    assert notes[0].startswith(f"1 of 2 files hold more than one frame ('a.{kind.lower()}': 3): only the first")
    assert "--frames all" in notes[0]


def test_heic_without_its_plugin_names_it(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    noise().save(tmp_path / "b.png")
    ((name, why),) = open_images(tmp_path, max_bad=0.5).skipped
    assert name == "a.heic"
    if importlib.util.find_spec("pillow_heif") is None:
        assert why.endswith("pip install 'nearfar[heif]'")


def test_no_program_is_started_for_what_is_called_an_image(tmp_path, monkeypatch):
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 12\n%%EndComments\nshowpage\n%%EOF\n"
    with Image.open(io.BytesIO(page)) as image:
        assert image.format == "EPS"
    (tmp_path / "photo.jpg").write_bytes(page)
    noise().save(tmp_path / "b.psd.png")
    ((name, why),) = open_images(tmp_path, max_bad=0.5).skipped
    assert (name, why.partition(" (")[0]) == ("photo.jpg", "no image of a format that is read here")
    for listed in ([page, encoded(noise())], [encoded(noise()), page]):
        assert len(open_images(listed, max_bad=0.5).skipped) == 1


def test_a_decompression_bomb_is_bad_and_no_warning(tmp_path, monkeypatch):
    for name, side in (("bomb", 40), ("worse", 80), ("well", 8)):
        noise(side, side).save(tmp_path / f"{name}.png")
        noise(side, side).save(tmp_path / f"{name}.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    images = open_images(tmp_path, max_bad=0.7)
    assert images.names == ["well.jpg", "well.png"]
    assert len(images.skipped) == 4
    assert all("decompression bomb" in why for _, why in images.skipped)
    assert {why.split("--max-pixels ")[1].split(" ")[0] for _, why in images.skipped} == {"1600", "6400"}
    assert len(open_images(tmp_path, max_pixels=1600, max_bad=0.7)) == 4
    assert open_images(tmp_path, max_pixels=100, max_bad=0.7).names == ["well.jpg", "well.png"]
    assert len(open_images(tmp_path, max_pixels=6400)) == 6


def test_a_image_is_squashed_as_by_pillow():
    image = noise(37, 50)
    square, aspect = decode.square(encoded(image), 20, 3)
    assert np.array_equal(square.transpose(1, 2, 0), pixels(image.resize((20, 20), Image.Resampling.BICUBIC)))
    assert aspect == 50 / 37


def test_a_large_jpeg_decoded_small_is_near_the_image_squashed():
    rough = noise(30, 40).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encoded(rough, "JPEG")
    square, _ = decode.square(data, 100, 3)
    wanted = pixels(Image.open(io.BytesIO(data)).resize((100, 100), Image.Resampling.BICUBIC))
    assert np.abs(square.transpose(1, 2, 0) - wanted).mean() < 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_head_of_a_jpeg_is_what_pillow_finds(mode, progressive):
    file = io.BytesIO()
    noise(20, 33, mode=mode).save(file, "JPEG", progressive=progressive, exif=Image.Exif(), comment=b"c" * 300)
    assert decode.head(io.BytesIO(file.getvalue())) == decode.Head(20, 1 if mode == "L" else 3)


@pytest.mark.parametrize("cut", [2, 3, 5, 20, 160])
def test_a_jpeg_cut_in_its_head_raises(cut):
    with pytest.raises(Exception, match=r"."):
        decode.square(encoded(noise(), "JPEG")[:cut], 12, 3)
