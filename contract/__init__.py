"""All that the backend and the GPU nodes say to each other: plain data, and nothing else in common."""
