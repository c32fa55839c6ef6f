"""Benchmarks: one package or module each, and one line in `__main__`. Run by scripts/bench."""
