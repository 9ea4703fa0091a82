"""Files: written whole or not at all, run directories, logs, the header of artifacts, the hub out of reach."""
