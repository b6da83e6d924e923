"""Images of glyphs: the same everywhere, of fonts that are not tested on, whole or not there."""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import pytest

from furs_jax.data import faces, fonts, glyph_images, glyphs, idx_files, load_images
from furs_jax.data.faces import CHARACTERS, Face, kin, read_faces
from furs_jax.data.fonts import FontFile, folder_fonts, package_fonts
from furs_jax.data.glyph_images import make
from furs_jax.errors import DataError

matplotlib = pytest.importorskip("matplotlib")  # its fonts
FONTS = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
STYLES = {
    "sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    "stix": ("STIXGeneral",),  # few enough for the test
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fonts")
    for name, files in STYLES.items():
        (folder / name).mkdir()
        for file in files:
            shutil.copy(FONTS / f"{file}.ttf", folder / name)
    return folder


@pytest.fixture(scope="module")
def made(folder):
    return make(folder_fonts(folder), 0)


def face_of(name: str, source: str = "") -> Face:
    ((face, _),) = read_faces(FontFile(FONTS / f"{name}.ttf", source or name))
    return face


def renamed(path: pathlib.Path, family: str, other: str) -> bytes:
    """The font file under another family's name, of the same length."""
    data = path.read_bytes()
    for encoding in ("ascii", "utf-16-be"):
        data = data.replace(family.encode(encoding), other.encode(encoding))
    return data


def test_the_same_bytes_whatever_files_are_called_and_in_whatever_order(folder, made, tmp_path):
    shutil.copytree(folder, tmp_path / "others")
    for number, path in enumerate(sorted((tmp_path / "others").rglob("*.ttf"))):
        path.rename(path.with_name(f"{9 - number}.ttf"))
    (tmp_path / "others" / "sans").rename(tmp_path / "others" / "z")
    for files in (folder_fonts(folder)[::-1], folder_fonts(tmp_path / "others")):
        again = make(files, 0)
        for ours, theirs in zip((again.train, again.test), (made.train, made.test), strict=True):
            np.testing.assert_array_equal(ours.images, theirs.images)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert again.record == made.record


def test_another_seed_draws_otherwise(folder, made):
    other = make(folder_fonts(folder), 1)
    assert other.test.families == made.test.families  # nothing else is small enough
    np.testing.assert_array_equal(other.test.labels, made.test.labels)
    changed = (other.test.images != made.test.images).any(axis=(1, 2))
    assert changed.all()


def test_another_font_leaves_the_images_of_the_others(folder, made):
    more = [*folder_fonts(folder), FontFile(FONTS / "DejaVuSansMono.ttf", str(folder / "sans"))]
    drawn, before = ({image.tobytes() for image in part.images} for part in (
        make(more, 0).train, made.train))  # fmt: skip
    assert before < drawn


def test_the_test_is_of_other_families(made):
    assert made.test.families == ("STIXGeneral",)
    assert made.train.families == ("DejaVu Sans", "DejaVu Serif")
    assert made.train.faces == 8
    assert len(made.test.labels) < 0.2 * (len(made.test.labels) + len(made.train.labels))


def test_images_show_the_glyphs(made):
    """Bright ink on dark; each is nearer to its character's mean than to most others'."""
    assert made.train.images.shape[1:] == (16, 16)
    images = made.train.images / 255
    means = np.stack([images[made.train.labels == i].mean(0) for i in range(len(CHARACTERS))])
    distances = ((made.test.images[:, None] / 255 - means) ** 2).sum((2, 3))
    ranks = (distances < distances[np.arange(len(distances)), made.test.labels][:, None]).sum(1)
    assert np.median(ranks) <= 10  # of 156, though the families differ
    assert images.max((1, 2)).mean() > 0.6 > 0.3 > np.median(images)


@pytest.mark.parametrize("name", ["cmr10", "DejaVuSans"])
def test_characters_that_a_font_lacks_are_left_out(name, monkeypatch):
    from matplotlib.ft2font import FT2Font

    charmap = FT2Font(str(FONTS / f"{name}.ttf")).get_charmap()
    file = FontFile(FONTS / f"{name}.ttf", "")
    if name == "cmr10":
        assert list(read_faces(file)) == []  # it lacks nearly half of them
        monkeypatch.setattr(faces, "_FEWEST", 0.1)
    ((face, masks),) = read_faces(file)
    found = {CHARACTERS[place] for place in masks}
    has = {character for character in CHARACTERS if ord(character) in charmap}
    assert found <= has
    assert len(has - found) <= 2  # drawn alike
    assert {CHARACTERS[place] for place in np.flatnonzero(face.keys)} == found


def test_characters_drawn_alike(monkeypatch):
    """Of two the first stays, of three none; nor what is drawn as a missing one, or not at all."""
    ink = {"A": 1, "a": 1, "B": 2, "C": 3, "D": 3, "E": 3, "F": 0}

    def mask(_, character):
        return np.full((2, 2), ink.get(character, 9), np.uint8)

    monkeypatch.setattr(faces, "_mask", mask)
    assert [CHARACTERS[place] for place in faces._masks(None)] == ["A", "B"]


def test_kin_are_faces_that_look_or_are_called_alike(tmp_path):
    fork = tmp_path / "fork.ttf"
    fork.write_bytes(renamed(FONTS / "DejaVuSans.ttf", "DejaVu Sans", "Qwerty Sans"))
    ((forked, _),) = read_faces(FontFile(fork, "fork"))
    assert forked.family == "Qwerty Sans"
    sans, bold, serif, stix = map(
        face_of, ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "STIXGeneral")
    )
    assert kin([sans, stix, bold, serif, forked]).tolist() == [0, 1, 0, 2, 0]
    assert kin([stix, serif._replace(source=stix.source)]).tolist() == [0, 0]
    # As another version of FreeType might draw it, under another name and from elsewhere.
    shapes = np.where(sans.shapes > 4, sans.shapes - 4, 0).astype(np.uint8)
    redrawn = Face("x", "y", b"z", sans.keys + 1, shapes)
    assert kin([redrawn, sans, stix]).tolist() == [0, 0, 1]


def test_kin_is_the_cosine_of_every_pair():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (len(CHARACTERS), 16, 16))
    shapes = [
        np.clip(base + rng.normal(0, noise, base.shape), 0, 255).astype(np.uint8)
        for noise in (0, 10, 20, 30, 40, 80)
    ]
    some = [Face(str(i), str(i), b"", np.ones(156, np.uint64), x) for i, x in enumerate(shapes)]
    unit = [
        x.reshape(156, -1) / np.linalg.norm(x.reshape(156, -1), axis=1)[:, None] for x in shapes
    ]
    for i in range(len(some)):
        for j in range(i):
            alike = ((unit[i] * unit[j]).sum(1) >= 0.985).mean() > 0.5
            assert (len(set(kin([some[i], some[j]]))) == 1) == alike


def test_a_face_that_is_packaged_twice_counts_once(folder, made, tmp_path):
    twin = tmp_path / "twin.ttf"
    twin.write_bytes(renamed(FONTS / "STIXGeneral.ttf", "STIXGeneral", "QwertyAsdfg"))
    again = make([*folder_fonts(folder), FontFile(twin, "elsewhere")], 0)
    np.testing.assert_array_equal(again.test.images, made.test.images)
    assert again.record["left_out"]["faces drawn as another"] == 1


def test_a_glyph_of_the_test_is_not_trained_on(folder, made, monkeypatch):
    """Though a face that is no kin draws it, too."""
    sans = face_of("DejaVuSans")
    monkeypatch.setattr(glyph_images, "_split", lambda faces, seed: (faces, [sans]))
    again = make(folder_fonts(folder), 0)
    left_out = again.record["left_out"]["training glyphs that are drawn as one of the test"]
    assert left_out >= np.count_nonzero(sans.keys)  # its bold face draws some alike
    total = len(made.train.labels) + len(made.test.labels)
    assert len(again.train.labels) == total - left_out
    trained, tested = ({x.tobytes() for x in part.images} for part in (again.train, again.test))
    assert not trained & tested


def faces_of_sizes(sizes):
    keys = np.arange(len(CHARACTERS)) + 1
    for number, size in enumerate(sizes):
        yield Face(
            str(number),
            str(number),
            hashlib.md5(str(number).encode()).digest(),
            np.where(keys <= size, keys, 0).astype(np.uint64),
            np.zeros((len(CHARACTERS), 16, 16), np.uint8),
        )


def test_the_split_follows_from_the_seed_and_the_faces_only(monkeypatch):
    monkeypatch.setattr(glyph_images, "kin", lambda faces: np.arange(len(faces)))
    some = sorted(faces_of_sizes(range(100, 150)), key=lambda face: face.digest)
    tests = []
    for seed in range(5):
        train, test = glyph_images._split(some, seed)
        assert sorted(face.family for face in train + test) == sorted(f.family for f in some)
        share = sum(np.count_nonzero(f.keys) for f in test) / sum(range(100, 150))
        assert 0.17 < share <= 0.2
        tests.append({face.family for face in test})
        fewer, _ = glyph_images._split(some[:-1], seed)
        order = [face.family for face in train]
        common = [face.family for face in fewer if face.family in order]
        assert common == [name for name in order if name in common]
    assert len(set(map(frozenset, tests))) == 5


def test_damaged_fonts_are_counted_and_skipped(folder, made, tmp_path):
    whole = (FONTS / "DejaVuSansMono.ttf").read_bytes()
    damage = {
        "cut.ttf": whole[: len(whole) // 3],
        "empty.otf": b"",
        "page.ttc": b"<html>not found</html>",
        "collection.ttc": b"ttcf" + whole[4:100],
        "noise.ttf": whole[:2000] + bytes(len(whole) - 2000),
    }
    for name, data in damage.items():
        (tmp_path / name).write_bytes(data)
    missing = FontFile(tmp_path / "missing.ttf", "")
    again = make([*folder_fonts(tmp_path), *folder_fonts(folder), missing], 0)
    np.testing.assert_array_equal(again.train.images, made.train.images)
    assert again.record["left_out"]["font files that can't be drawn"] == len(damage) + 1


def test_whatever_pillow_raises_is_a_damaged_font(monkeypatch):
    def broken(font):
        raise IndexError("in Pillow")

    monkeypatch.setattr(faces, "_masks", broken)
    with pytest.raises(faces.UnusableError, match="in Pillow"):
        list(read_faces(FontFile(FONTS / "DejaVuSans.ttf", "")))


def test_a_large_file_is_not_read(monkeypatch):
    monkeypatch.setattr(faces, "_MOST_BYTES", 1000)
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda self: pytest.fail("it is read"))
    with pytest.raises(faces.UnusableError, match="more than 1,000 bytes"):
        list(read_faces(FontFile(FONTS / "DejaVuSans.ttf", "")))


def test_the_command_writes_what_idx_reads(folder, made, tmp_path, capsys):
    target = tmp_path / "new" / "glyphs"
    glyphs.main([str(target), f"--fonts={folder}"])
    out = capsys.readouterr().out
    assert f"train: {len(made.train.labels):,} images, 8 faces, 2 families" in out
    assert f"idx:{target}" in out
    images = load_images(f"idx:{target}")
    np.testing.assert_array_equal(images.train.images[..., 0], made.train.images)
    np.testing.assert_array_equal(images.test.labels, made.test.labels)
    assert images.num_classes == len(CHARACTERS) == 156
    record = json.loads((target / "glyphs.json").read_text())
    assert record["classes"] == CHARACTERS
    assert record["test_families"] == ["STIXGeneral"]
    for name, digest in record["sha256"].items():
        assert hashlib.sha256((target / name).read_bytes()).hexdigest() == digest
    assert sorted(record["sha256"]) == sorted(p.name for p in target.iterdir() if p.suffix == "")


def test_a_kill_leaves_nothing_in_its_place(folder, made, tmp_path, monkeypatch):
    target, write = tmp_path / "glyphs", idx_files.write

    def stopped(where, part, *arrays):
        assert not target.exists()
        if part == "t10k":
            raise KeyboardInterrupt
        write(where, part, *arrays)

    monkeypatch.setattr(glyphs.idx_files, "write", stopped)
    with pytest.raises(SystemExit, match="interrupted; nothing was written"):
        glyphs.main([str(target), f"--fonts={folder}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["file", "full", "raced"])
def test_a_folder_of_something_else_is_left_alone(folder, tmp_path, monkeypatch, what):
    target = tmp_path / "photos"
    if what == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    if what == "raced":  # it was not there when the command began
        monkeypatch.setattr(glyphs, "refuse", lambda folder: None)
    else:
        monkeypatch.setattr(glyph_images, "make", lambda *_: pytest.fail("it draws first"))
    message = "can't be made .*" if what == "raced" else "is there and not empty; give another"
    with pytest.raises(SystemExit, match=f"furs_jax: {target} {message}"):
        glyphs.main([str(target), f"--fonts={folder}"])
    assert [p.read_text() for p in tmp_path.rglob("*") if p.is_file()] == ["mine"]


def test_refusals_are_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_DPKG", tmp_path)
    cases = {
        (f"--fonts={tmp_path}",): "0 faces, of 0 font files, are too few .* apt-get install fonts-",
        (f"--fonts={folder}/sans",): "4 faces, of 4 font files, are too few",
        (): r"(\d+) of \1 packages of fonts are not installed: apt-get install .* fonts-lato ",
        ("--seed=-1",): "--seed must be at least 0",
        ("--size=3",): "unrecognized arguments: --size=3",
    }
    for arguments, message in cases.items():
        with pytest.raises(SystemExit, match=f"^furs_jax: .*{message}") as stopped:
            glyphs.main([str(tmp_path / "new"), *arguments])
        assert "\n" not in str(stopped.value)
    assert list(tmp_path.iterdir()) == []


def test_fonts_of_packages_are_those_that_dpkg_lists(tmp_path):
    (tmp_path / "fonts-a.list").write_text("/usr\n/usr/a.ttf\n/usr/doc\n/usr/B.OTF\n/usr/c.pfb\n")
    (tmp_path / "fonts-b.list").write_text("/usr/b.ttc\n")
    found = package_fonts(("fonts-a", "fonts-b"), tmp_path)
    assert [(str(path), source) for path, source in found] == [
        ("/usr/a.ttf", "fonts-a"),
        ("/usr/B.OTF", "fonts-a"),
        ("/usr/b.ttc", "fonts-b"),
    ]
    with pytest.raises(DataError, match=r"1 of 2 packages .*-recommends fonts-c \(or"):
        package_fonts(("fonts-b", "fonts-c"), tmp_path)


def test_too_many_faces_are_refused(folder, monkeypatch):
    monkeypatch.setattr(glyph_images, "_MOST_FACES", 3)
    with pytest.raises(DataError, match="more than 3 faces"):
        make(folder_fonts(folder), 0)
