"""Algorithms: from dermoscopic pixels to an analysis, and the training that makes the weights."""
