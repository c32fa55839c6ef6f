"""A small typed client of the API: what the command line speaks, over HTTP and nothing else."""
