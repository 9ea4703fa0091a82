"""Files: written whole or not at all, run directories, logs, the header of artifacts, the hub out of reach.

Begin with `files` (how one is written), `record` (how one is read) and `run_directory` (which ones a run has). What
stands in each says a module of its own: `results_record`, `sample_records`, `metrics_records`, `artifact_metadata`, …
"""
