"""Routes: they parse, call and answer."""
