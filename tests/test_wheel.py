"""The built wheel is complete: unpacked alone into an empty place, it runs the main job from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]


def test_the_wheel_runs_from_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("embedgrad-*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert "embedgrad_cli/conf/optimize.yaml" in names
    assert "hydra_plugins/embedgrad_optuna.py" in names
    assert "embedgrad_cli/assets/tiny/model.safetensors" in names
    assert {f"embedgrad_cli/reports/templates/{name}" for name in ("run.html.j2", "style.css", "rows.js")} <= {*names}
    assert not [name for name in names if name.startswith(("tests", "scripts"))]

    code = (
        "import sys, embedgrad_cli; print(embedgrad_cli.__file__);"
        "from embedgrad_cli.cli.main import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "optimize", "experiment=debug", "output_dir=run"]
    environment = {**os.environ, "PYTHONPATH": str(site)}  # comes before the checkout the tests run from
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site)), done.stdout
    results = json.loads((empty / "run/results.json").read_text())
    assert results["num_examples"] == 8
    assert (empty / "run/report.html").exists()
