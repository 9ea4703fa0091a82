"""What the benchmarks `bench_*.py` share: models, batches, both sides' steps, clocks and counting."""
