"""How good a model package is, measured on labelled images as a third party would: figures, charts, one report.

Nothing here needs torch, and nothing that serves imports it.
"""
