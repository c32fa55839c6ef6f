"""Celery tasks: thin, named, routed, safe to run twice."""
