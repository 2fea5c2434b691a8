"""Downscaling: fine fields from coarse ones."""
