"""Masks, allocation and the host of pruning methods."""
