"""The command line: python -m furs_jax.data.glyphs DIR [--seed=N] [--fonts=FOLDER].

Or bash launch/run.sh glyphs DIR, which installs what it needs.

Writes a data set for --config.data.name=idx:DIR (extra `images`): the printable characters of ASCII
and the letters of Latin-1, 156 classes, an image of each as every face of many fonts draws it:
16x16 gray pixels, ink bright, slightly turned, sheared, scaled and moved, with noise. At most a
fifth are the test, of other families of fonts. The fonts are those of the Debian packages that
furs_jax/data/fonts.py lists, or those in FOLDER and below.

The bytes follow from the seed and from what the fonts draw, not from files' names and places.
Another version of a font changes its own images, and perhaps which families are the test; another
FreeType, Pillow or NumPy may change any. glyphs.json has these versions, the families, and the
files' digests.
"""

import hashlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from furs_jax.cli import OneLineParser
from furs_jax.data import idx_files
from furs_jax.data.fonts import folder_fonts, package_fonts
from furs_jax.errors import DataError, FursError, MissingExtraError
from furs_jax.machine import sealed
from furs_jax.paths import resolve

if TYPE_CHECKING:  # Pillow is an extra
    from furs_jax.data.glyph_images import GlyphSet


def refuse(folder: pathlib.Path) -> None:
    """Raises DataError where there is anything in the folder, or a file in its place."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} is there and not empty; give another folder, or delete it")


def save(folder: pathlib.Path, glyphs: "GlyphSet") -> None:
    """Writes the data set, whole or not at all: a kill leaves at most a hidden folder beside it.

    Raises:
      DataError: the folder holds something.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        unfinished = pathlib.Path(beside, folder.name)
        unfinished.mkdir()
        for name, part in zip(idx_files.PARTS, (glyphs.train, glyphs.test), strict=True):
            idx_files.write(unfinished, name, part.images, part.labels)
        digests = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(unfinished.iterdir())
        }
        sealed.write_json(unfinished / "glyphs.json", {**glyphs.record, "sha256": digests})
        try:
            os.rename(unfinished, folder)
        except OSError as error:  # something is there
            raise DataError(f"{folder} can't be made ({error.strerror})") from error
    sealed.sync_folder(folder.parent)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = OneLineParser(
        "python -m furs_jax.data.glyphs", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument("folder", metavar="DIR", help="the folder to write")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="0 or more")
    parser.add_argument("--fonts", metavar="FOLDER", help="of fonts, in place of the packages")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error("--seed must be at least 0")
    try:
        try:
            from furs_jax.data.glyph_images import make
        except ImportError as error:
            raise MissingExtraError("images of glyphs", error.name, "images") from error
        folder = pathlib.Path(resolve(options.folder, "DIR "))
        refuse(folder)
        if options.fonts:
            files = folder_fonts(pathlib.Path(resolve(options.fonts, "--fonts=")))
        else:
            files = package_fonts()
        glyphs = make(files, options.seed)
        save(folder, glyphs)
    except (FursError, OSError) as error:
        sys.exit(f"furs_jax: {error}")
    except KeyboardInterrupt:
        sys.exit("furs_jax: interrupted; nothing was written")
    print(glyphs.summary)
    print(f"{folder}: give it as --config.data.name=idx:{folder}")


if __name__ == "__main__":
    main()
