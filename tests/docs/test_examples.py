"""The Python blocks of the pages run as they stand, one after the other, and print what their comments say."""

from __future__ import annotations

import linecache
import logging
import re
from collections.abc import Iterator

import pytest

from tests.support.pages import PAGES, code_blocks, name
from tests.support.paths import ROOT

WITH_EXAMPLES = [name(page) for page in PAGES if code_blocks(page, "python")]
SHORTER = {"README.md": [("steps=400", "steps=10"), ("normal[100:150]", "normal[100:110]")]}
"""What is changed in a page's blocks so that they take seconds."""
GIVEN = {
    "docs/troubleshooting.md": """
import adgan_fast
from adgan_fast.models import DCGANGenerator

generator = DCGANGenerator(image_size=8, channels=1, latent=4, width=4)
images = generator(adgan_fast.core.starts.draw(1, None, 3, (4,), "normal").float()).detach()
"""
}
"""What a page's blocks take for granted: a reader's own generator and images."""
EXPECTED = re.compile(r"^print\(.*\)  # (?P<printed>.*)$", re.MULTILINE)


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """The handlers and levels of logging as they were: one page shows how to set them."""
    root, own = logging.getLogger(), logging.getLogger("adgan_fast")
    handlers, level = list(root.handlers), own.level
    yield
    root.handlers[:] = handlers
    own.setLevel(level)


@pytest.mark.filterwarnings("ignore:.*hold NaN or Inf:RuntimeWarning")  # the guide spoils an image on purpose
@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_the_examples_of_a_page_run_and_print_what_they_say(
    page, one_thread, quiet_logs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    changes = SHORTER.get(page, [])
    blocks = code_blocks(ROOT / page, "python")
    for old, _ in changes:
        assert any(old in text for _, text in blocks), f"{page} has no {old!r} any more"
    namespace: dict[str, object] = {"__name__": "example"}
    exec(GIVEN.get(page, ""), namespace)
    for line, text in blocks:
        for old, new in changes:
            text = text.replace(old, new)
        run("\n" * (line - 1) + text, str(ROOT / page), namespace)
        printed = iter(capsys.readouterr().out.splitlines())
        for said in EXPECTED.finditer(text):
            assert next(printed) == said["printed"], f"{page}:{line + text.count(chr(10), 0, said.start())}"


def run(source: str, file: str, namespace: dict[str, object]) -> None:
    """Run source that stands in `file`, lines counted as there, so that tracebacks find it."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)


def test_the_pages_that_teach_the_use_have_examples():
    assert {"README.md", "docs/guide.md"} <= set(WITH_EXAMPLES)
