"""What finished runs left behind, as one HTML file that needs nothing else."""
