"""Jobs: their tables, and every query and legal change of state."""
