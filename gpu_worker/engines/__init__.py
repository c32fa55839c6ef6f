"""Engines: they turn prompts into pixels. One file each, listed in `gpu_worker.registry`."""
