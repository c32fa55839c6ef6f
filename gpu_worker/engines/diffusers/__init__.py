"""The engine that runs diffusers: batches, LoRAs, previews, and a ladder for when memory is short."""
