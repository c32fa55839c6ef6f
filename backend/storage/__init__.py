"""Stores for originals and thumbnails."""
