"""What a model of any family runs on: attention, caches, captured steps, upcast products."""
