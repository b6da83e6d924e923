"""Font files: those of Debian packages, or of a folder."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from furs_jax.errors import DataError

# Of Debian 12's main archive, with letters in the style of books, screens, comics and typewriters.
_NAMES = """
    3270 adf-accanthis adf-baskervald adf-berenis adf-gillius adf-ikarius adf-irianis adf-libris
    adf-mekanus adf-oldania adf-romande adf-solothurn adf-switzera adf-tribun adf-universalis
    adf-verana agave anonymous-pro arapey averia-gwf averia-sans-gwf averia-serif-gwf b612
    beteckna cantarell cardo century-catalogue clear-sans cmu comfortaa comic-neue courier-prime
    croscore crosextra-caladea crosextra-carlito dejavu-core dejavu-extra dosis dustin
    ebgaramond ebgaramond-extra essays1743 eurofurence fanwood firacode freefont-ttf
    georgewilliams gfs-artemisia gfs-didot gfs-neohellenic gnutypewriter go goudybookletter
    hermit inconsolata inter isabella jetbrains-mono jura karla lato league-spartan liberation
    lindenhill linuxlibertine lobster lobstertwo manrope monofur monoid mononoki national-park
    noto-core noto-mono oldstandard open-sans opendyslexic osifont oxygen paratype play prociono
    quattrocento quicksand roboto-slab roboto-unhinted routed-gothic sil-andika sil-charis
    sil-doulos sil-galatia sil-gentium sil-gentium-basic sil-gentiumplus sora stix texgyre
    tiresias triod-postnaja tuffy urw-base35 vollkorn yanone-kaffeesatz yrsa-rasa
"""
PACKAGES = tuple(f"fonts-{name}" for name in _NAMES.split())
_DPKG = pathlib.Path("/var/lib/dpkg/info")  # lists of the files of installed packages
_EXTENSIONS = (".ttf", ".otf", ".ttc", ".otc")


class FontFile(NamedTuple):
    path: pathlib.Path
    source: str  # what it came with: a package, or a folder


def package_fonts(
    packages: Sequence[str] = PACKAGES, lists: pathlib.Path | None = None
) -> list[FontFile]:
    """The font files that Debian packages installed.

    Raises:
      DataError: packages are missing.
    """
    lists = lists or _DPKG
    missing = [package for package in packages if not (lists / f"{package}.list").is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(packages)} packages of fonts are not installed: apt-get "
            f"install --no-install-recommends {' '.join(missing)} (or give --fonts=FOLDER)"
        )
    return [
        FontFile(pathlib.Path(line), package)
        for package in packages
        for line in (lists / f"{package}.list").read_text().splitlines()
        if line.lower().endswith(_EXTENSIONS)
    ]


def folder_fonts(folder: pathlib.Path) -> list[FontFile]:
    """The font files in a folder and those below; what lies in one folder came together."""
    return [
        FontFile(path, str(path.parent))
        for path in folder.rglob("*")
        if path.suffix.lower() in _EXTENSIONS and path.is_file()
    ]
