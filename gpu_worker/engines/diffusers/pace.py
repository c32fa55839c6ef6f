"""Keeps the program at most one step ahead of the device, so that steps, progress and cancels are true."""

import torch


class Pace:
    """On CUDA, work is queued: without this, all steps are "done" in a moment, and none can be called off.

    Waiting for the step before the last leaves the device always something to do.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._last: torch.cuda.Event | None = None

    def begin(self) -> None:
        """Before the first step."""
        self._last = None

    def step(self) -> None:
        """After each step was queued."""
        if not self._cuda:
            return
        if self._last is not None:
            self._last.synchronize()
        self._last = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types for it
        self._last.record()
