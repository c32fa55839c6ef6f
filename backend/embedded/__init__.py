"""Everything on one machine, in one foreground process tree: broker, API, CPU worker, nodes."""
