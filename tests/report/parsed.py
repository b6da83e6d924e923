"""A page as a browser would take it apart, by Python's own parser."""

from html.parser import HTMLParser

EMPTY = {"meta", "br"}


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each section and cell.

    Attributes:
      tags: (name, attributes) of every element, in order.
      texts: title of a section -> its text.
      cells: title of a section -> rows of its tables, as texts.
    """

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {"": ""}
        self.cells: dict[str, list[list[str]]] = {"": []}
        self._open: list[str] = []
        self._section = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self._open.append(tag)
        if tag == "h2":
            self._section = ""
        if tag == "tr":
            self.cells[self._section].append([])
        if tag in ("td", "th"):
            self.cells[self._section][-1].append("")
        if tag == "br":
            self.texts[self._section] += "\n"

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "h2":
            self.texts.setdefault(self._section, "")
            self.cells.setdefault(self._section, [])

    def handle_data(self, data):
        if self._open[-1:] == ["h2"]:
            self._section += data
            return
        if self._open[-1:] == ["style"]:
            return
        self.texts[self._section] += data
        if {"td", "th"} & set(self._open):
            self.cells[self._section][-1][-1] += data
