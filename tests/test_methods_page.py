"""docs/METHODS.md has every method, and the code that it shows is the code that is tested."""

import re
import textwrap

from configs import compare_fashion, table4
from furs_jax import plugins
from tests import ROOT

TEXT = (ROOT / "docs" / "METHODS.md").read_text()


def test_the_table_has_every_method_and_comparisons_run_them():
    methods = plugins.names("methods")
    assert sorted(re.findall(r"^\| `(\w+)` \| ", TEXT, re.M)) == sorted(methods)
    assert sorted(compare_fashion.METHODS) == sorted(table4.METHODS) == sorted(methods)


def test_the_example_is_a_file_that_runs():
    (code,) = re.findall(r"^ *```python\n(.*?)```", TEXT, re.S | re.M)
    source = (ROOT / "tests" / "toys" / "equal.py").read_text()
    assert textwrap.dedent(code).strip() == source.strip()


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
