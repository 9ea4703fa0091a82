"""Which module writes which format."""

from __future__ import annotations

import pytest

from embedgrad_cli.config.checks import FORMATS
from embedgrad_cli.exports import writer_of


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_its_writer(format: str) -> None:
    assert writer_of(format).__module__ == f"embedgrad_cli.exports.{format}"
