"""Where the YAML files of settings are."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The folder of YAML files: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"
