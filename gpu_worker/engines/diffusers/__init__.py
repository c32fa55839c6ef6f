"""The engine that runs diffusers pipelines: batches, LoRAs, previews, and a ladder down when memory is short."""
