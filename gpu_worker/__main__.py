"""`python -m gpu_worker`: the same as `fanfare-node`."""

from gpu_worker.worker import main

main()
