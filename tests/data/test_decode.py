"""Image files of every kind that is read: right, or refused by name."""

import contextlib
import resource
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from furs_jax.data import formats
from furs_jax.data.pixels import UnsupportedError, eight_bits
from tests.data.encoded import encoded, whole

RAMP = np.linspace(0, 1, 32, dtype=np.float32)[:, None].repeat(32, 1)
BYTES = np.round(255 * RAMP).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in parts:
        check = zlib.crc32(kind + content)
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
    return data


def png(width: int, height: int, rows: bytes, bits=8, colour=2, interlaced=0, more=()) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    data = (b"IDAT", zlib.compress(rows))
    return chunks((b"IHDR", header), *more, data, (b"IEND", b""))


def tiff(pixels: np.ndarray, photometric=1, order="<", more=()) -> bytes:
    """An uncompressed TIFF of one strip; `more` are other tags, as (tag, LONG)."""
    height, width = pixels.shape[:2]
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {256: width, 257: height, 258: 8 * pixels.dtype.itemsize, 259: 1, 262: photometric}
    tags |= {277: 1, 278: height, 279: len(raw), 339: kind, **dict(more)}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(
        struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value)
        for tag, value in sorted(tags.items())
    )
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return start + struct.pack(order + "H", len(tags)) + entries + bytes(4) + raw


SIXTEEN = np.round(65535 * RAMP).astype(np.uint16)
RIGHT = {
    "8-bit PNG": encoded(BYTES, "PNG"),
    "16-bit PNG": encoded(SIXTEEN, "PNG"),
    "16-bit TIFF": tiff(SIXTEEN),
    "16-bit TIFF, big endian": tiff(SIXTEEN, order=">"),
    "16-bit PPM": encoded(SIXTEEN, "PPM"),
    "float TIFF": tiff(RAMP),
    "float TIFF, big endian": tiff(RAMP, order=">"),
    "float PNG rounds": encoded((RAMP * 65535).astype(np.uint16), "PNG"),
    "int32 TIFF of bytes": tiff(BYTES.astype(np.int32)),
    "uint32 TIFF of bytes": tiff(BYTES.astype(np.uint32)),
    "int16 TIFF of bytes": tiff(BYTES.astype(np.int16)),
    "TIFF, white is zero": tiff(255 - BYTES, photometric=0),
    "16-bit grey and alpha PNG": png(
        *(32, 32),
        b"".join(
            b"\0" + np.stack([row, np.full_like(row, 999)], -1).astype(">u2").tobytes()
            for row in SIXTEEN
        ),
        *(16, 4),
    ),
    "16-bit RGB PNG": png(
        *(32, 32),
        b"".join(b"\0" + row.repeat(3).astype(">u2").tobytes() for row in SIXTEEN),
        *(16, 2),
    ),
    "grey and alpha": encoded(Image.fromarray(np.stack([BYTES, 255 - BYTES], -1), "LA"), "PNG"),
    "palette, transparent": encoded(
        Image.fromarray(BYTES).convert("P"), "PNG", transparency=bytes(range(256))
    ),
    "grey, one level transparent": encoded(BYTES, "PNG", transparency=200),
    "JPEG in TIFF": encoded(
        np.repeat(BYTES[..., None], 3, -1), "TIFF", compression="jpeg", quality=98
    ),
    "grey JPEG": encoded(BYTES, "JPEG", quality=98),
    "CMYK JPEG": encoded(Image.fromarray(BYTES).convert("CMYK"), "JPEG", quality=98),
    "first frame of a GIF": encoded(
        BYTES, "GIF", save_all=True, append_images=[Image.fromarray(255 - BYTES)]
    ),
    "first page of a TIFF": encoded(
        BYTES, "TIFF", save_all=True, append_images=[Image.fromarray(255 - BYTES)]
    ),
    "first frame of a WebP": encoded(
        np.repeat(BYTES[..., None], 3, -1),
        "WEBP",
        lossless=True,
        save_all=True,
        append_images=[Image.new("RGB", (32, 32))],
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", RIGHT)
def test_every_depth_is_read_right(kind):
    error = np.abs(whole(RIGHT[kind]) - BYTES[..., None]).max()
    assert error <= (4 if "JPEG" in kind else 1)


REFUSED = {
    "floats of another range": (tiff(255 * RAMP), "floats span 0 to 255"),
    "floats that are none": (tiff(np.full((4, 4), np.nan, np.float32)), "floats span nan"),
    "negative floats": (tiff(RAMP - 0.5), "floats span -0.5 to 0.5"),
    "int32 beyond bytes": (tiff(BYTES.astype(np.int32) * 9), "span 0 to 2295"),
    "negative int16": (tiff(BYTES.astype(np.int16) - 1), "span -1 to 254"),
    "negative int8": (tiff(BYTES.view(np.int8)), "have a sign"),
    "8 bits held in 16": (tiff(BYTES.astype(np.uint16)), "16-bit values end at 255"),
    "16 bits, white is zero": (tiff(SIXTEEN, photometric=0), "from white to black"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_depths_whose_white_is_unknown_are_refused(kind):
    data, message = REFUSED[kind]
    with pytest.raises(UnsupportedError, match=message):
        whole(data)


def test_arrays_of_any_type_become_bytes_or_are_refused():
    assert eight_bits(np.array([False, True])).tolist() == [0, 255]
    assert eight_bits(np.array([0, 4095], np.uint16), bits=12).tolist() == [0, 255]
    assert eight_bits(np.array([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
    assert eight_bits(np.array([0, 255], np.int64)).tolist() == [0, 255]
    assert eight_bits(np.zeros((2, 2), np.uint16)).tolist() == [[0, 0]] * 2
    for values in ([0, 256], [-1, 3], [0.0, 1.1], [1j]):
        with pytest.raises(UnsupportedError):
            eight_bits(np.array(values))


def jpeg_with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    segment = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    return data[:2] + segment + data[2:]


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_of_exif_s_turns_in_every_format(kind, turned):
    image = Image.fromarray(BYTES[:, :24]).convert("RGB")
    image.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = turned
    options = {"quality": 98} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = encoded(image, kind, exif=exif, **options)
    image.getexif()[0x0112] = turned
    right = whole(encoded(ImageOps.exif_transpose(image), "PNG"))
    assert np.abs(whole(data) - right).mean() < 3
    if kind == "JPEG":  # the segment may stand behind others, as long as they like
        late = jpeg_with_segment(data, 0xED, b"Photoshop 3.0\0" + bytes(60_000))
        late = jpeg_with_segment(late, 0xE2, bytes(60_000))
        np.testing.assert_array_equal(whole(late), whole(data))


def test_the_word_exif_in_the_pixels_turns_nothing():
    """EXIF is found by the file's segments, not by a search."""
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(NOISE, "JPEG")
    np.testing.assert_array_equal(
        whole(jpeg_with_segment(plain, 0xEF, b"Exif\0\0" + exif.tobytes())), whole(plain)
    )


def halves(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_gif() -> bytes:
    """Half of its blocks, with the block that ends them."""
    data = encoded(Image.fromarray(NOISE).quantize(16), "GIF")
    place = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    while data[place] != 0x2C:  # extensions
        place += 2
        while data[place]:
            place += data[place] + 1
        place += 1
    place += 11
    blocks = []
    while data[place]:
        blocks.append(place)
        place += data[place] + 1
    return data[: blocks[len(blocks) // 2]] + b"\0;"


def cut_jpeg_in_tiff() -> bytes:
    data = bytearray(encoded(NOISE, "TIFF", compression="jpeg", quality=95))
    middle = len(data) // 2
    data[middle : middle + 1000] = bytes(1000)
    return bytes(data)


def rows(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def adam7(pixels: np.ndarray) -> bytes:
    return b"".join(
        rows(pixels[top::down, left::right]) for left, top, right, down in formats._ADAM7
    )


PHOTO = encoded(NOISE, "JPEG", quality=95)
ENDS_EARLY = {
    "JPEG": halves(PHOTO) + b"\xff\xd9",
    "progressive JPEG": halves(encoded(NOISE, "JPEG", progressive=True)) + b"\xff\xd9",
    "grey JPEG": halves(encoded(NOISE[..., 0], "JPEG")) + b"\xff\xd9",
    "CMYK JPEG": halves(encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG")) + b"\xff\xd9",
    "JPEG of bytes put in": PHOTO[:2000] + bytes(500) + PHOTO[2500:],
    "JPEG without its end": PHOTO[:-2],
    "JPEG in TIFF": cut_jpeg_in_tiff(),
    "PNG": png(64, 64, halves(rows(NOISE))),
    "interlaced PNG": png(64, 64, halves(adam7(NOISE)), interlaced=1),
    "PNG of a cut stream": chunks(
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)),
        (b"IDAT", halves(zlib.compress(rows(NOISE)))),
        (b"IEND", b""),
    ),
    "GIF": cut_gif(),
    "BMP": encoded(NOISE, "BMP")[:-500],
    "TIFF": encoded(NOISE, "TIFF")[:-500],
    "PPM": encoded(NOISE, "PPM")[:-500],
    "WebP": encoded(NOISE, "WEBP")[:-500],
}


@pytest.mark.parametrize("kind", ENDS_EARLY)
def test_images_that_end_too_early_are_refused(kind):
    with pytest.raises(ValueError, match="JPEG|ends too early|truncated|decoder"):
        whole(ENDS_EARLY[kind])


def test_whole_images_with_black_rows_or_interlaced_are_read():
    below = NOISE.copy()
    below[32:] = 0
    for pixels in (NOISE, below, np.zeros_like(NOISE), NOISE[:61, :5], NOISE[:1, :1]):
        shape = pixels.shape[1::-1]
        for data in (png(*shape, rows(pixels)), png(*shape, adam7(pixels), interlaced=1)):
            np.testing.assert_array_equal(formats.decode(data), pixels)


def test_an_odd_version_of_jfif_is_no_damage():
    place = PHOTO.index(b"JFIF\0") + 5
    odd = PHOTO[:place] + b"\0" + PHOTO[place + 1 :]
    np.testing.assert_array_equal(whole(odd), whole(PHOTO))


def test_only_the_promised_formats_are_tried(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    others = [encoded(NOISE, kind) for kind in ("PDF", "ICO", "TGA", "SGI", "JPEG2000", "PCX")]
    for data in (eps, b"", b"text", b"\0" * 99, *others):
        with pytest.raises(ValueError, match="no JPEG, PNG, WebP, BMP, GIF, TIFF or PPM"):
            whole(data)
    assert not ran.exists()


def claiming(data: bytes, side: int, kind: str) -> bytes:
    """The image with a header that claims `side` pixels a side."""
    where, how = {
        "PNG": (16, ">II"),
        "GIF": (6, "<HH"),
        "BMP": (18, "<II"),
        "JPEG": (max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5, ">HH"),
    }[kind]
    new = bytearray(data)
    struct.pack_into(how, new, where, side, side)
    if kind == "PNG":
        struct.pack_into(">I", new, 29, zlib.crc32(new[12:29]))
    return bytes(new)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "data",
    [
        *(claiming(encoded(NOISE, kind), 20_000, kind) for kind in ("PNG", "GIF", "BMP", "JPEG")),
        claiming(encoded(NOISE, "JPEG", progressive=True), 65_000, "JPEG"),
        b"P6 60000 60000 255\n" + bytes(99),
        tiff(BYTES, more={256: 50_000, 257: 50_000}.items()),
        tiff(BYTES, more={322: 65_536, 323: 65_536, 324: 8, 325: 1024}.items()),  # a huge tile
    ],
    ids=["PNG", "GIF", "BMP", "JPEG", "progressive", "PPM", "TIFF", "TIFF tile"],
)
def test_what_a_header_claims_is_bounded_before_it_is_allocated(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsupportedError, match="pixels, more than the 67,108,864 that are read"):
        whole(data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * (1 << 20 if sys.platform == "darwin" else 1 << 10)


def test_compressed_text_and_profiles_are_bounded():
    bomb = zlib.compress(bytes(1 << 26))
    for kind, start in ((b"zTXt", b"k\0\0"), (b"iCCP", b"p\0\0"), (b"iTXt", b"k\0\1\0\0\0")):
        data = png(64, 64, rows(NOISE), more=[(kind, start + bomb)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with contextlib.suppress(ValueError):
            whole(data)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 30 * (1 << 20 if sys.platform == "darwin" else 1 << 10)
