"""One furnished folder for all tests of the documentation, and a hub that takes every upload."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.docs.workplace import Workplace, furnish


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workplace")
    furnish(folder)
    return folder


@pytest.fixture(scope="session")
def workplace(furnished: Path) -> Workplace:
    return Workplace(furnished)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for huggingface.co."""
    import huggingface_hub

    class Hub:
        def __init__(self, **names: Any) -> None:
            pass

        def create_repo(self, repository: str, **settings: Any) -> None:
            assert repository == "OWNER/NAME"

        def upload_folder(self, **settings: Any) -> SimpleNamespace:
            return SimpleNamespace(commit_url=f"https://huggingface.co/{settings['repo_id']}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
