"""Ways to tell somebody outside that something has happened."""
