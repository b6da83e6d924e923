"""Crops of decoded images: of every kind, upright, scaled, at random."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.photos import jpeg, photo
from furs_jax.data.decode import Box, central_box, decode_crop, random_box
from tests.data.encoded import encoded, whole


def test_colour_modes_become_rgb():
    colour = (200, 60, 20)
    plain = Image.new("RGB", (24, 24), colour)
    kinds = {
        "JPEG": encoded(plain, "JPEG", quality=95),
        "CMYK": encoded(plain.convert("CMYK"), "JPEG", quality=95),
        "palette": encoded(plain.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "RGBA": encoded(plain.convert("RGBA"), "PNG"),
        "BMP": encoded(plain, "BMP"),
        "WebP": encoded(plain, "WEBP", lossless=True),
    }
    for kind, data in kinds.items():
        assert np.abs(whole(data, 8) - np.array(colour)).max() <= 4, kind
    for kind, image, level in (
        ("JPEG", Image.new("L", (24, 24), 77), 77),
        ("PNG", Image.fromarray(np.full((24, 24), 77 * 256, np.uint16)), 77),
        ("PNG", Image.new("1", (24, 24), 1), 255),
    ):
        assert np.abs(whole(encoded(image, kind), 8) - level).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_turned_images_are_turned_upright(kind):
    pixels = np.zeros((40, 24, 3), np.uint8)
    pixels[:20] = 255  # upright: white above
    turned = Image.fromarray(np.rot90(pixels))  # as a camera held on its side stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    found = whole(encoded(turned, kind, exif=exif), 8)
    assert found[:3].min() > 240
    assert found[-3:].max() < 15
    exif[0x0112] = 1
    found = whole(encoded(Image.fromarray(pixels), kind, exif=exif), 8)
    assert found[:3].min() > 240


def test_scaled_decoding_shows_the_same():
    image = photo(np.random.default_rng(1), 390, 500)
    reference = image.crop((16, 8, 416, 360)).resize((40, 40), Image.Resampling.BOX)
    out = np.zeros((40, 40, 3), np.uint8)
    decode_crop(jpeg(image), lambda height, width: Box(8, 16, 352, 400), out)
    error = np.abs(out.astype(int) - np.asarray(reference)).mean()
    shifted = np.abs(out[:, 1:].astype(int) - np.asarray(reference)[:, :-1]).mean()
    assert error < 0.5 * shifted
    assert error < 3


def test_random_boxes_have_the_stated_areas_and_ratios():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(rng, 300, 400, 0.2) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert min(top.min(), left.min()) >= 0
    assert np.all(top + height <= 300 + 1e-9)
    assert np.all(left + width <= 400 + 1e-9)
    area, ratio = height * width / 120_000, width / height
    assert 0.2 <= area.min() < 0.21
    assert 0.95 < area.max() <= 1
    assert 0.75 <= ratio.min() < 0.76
    assert 1.32 < ratio.max() <= 4 / 3 + 1e-9
    always = area[area < 0.75**2]  # of these every ratio fits
    assert np.median(always) == pytest.approx((0.2 + 0.75**2) / 2, abs=0.02)
    thin = random_box(rng, 10, 1000, 1.0)  # no ratio fits: the middle
    assert thin == pytest.approx((0, 500 - 20 / 3, 10, 40 / 3))
    assert central_box(300, 400, 0.5) == (75, 125, 150, 150)
