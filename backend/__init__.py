"""The API and the CPU workers: the only side with a database and with storage keys."""
