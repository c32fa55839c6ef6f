"""Language models: they turn one message into N image prompts."""
