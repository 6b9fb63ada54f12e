"""Speed on CUDA devices."""
