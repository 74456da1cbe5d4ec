"""The training room: the only one that imports torch. See ``docs/model-training.md``."""
