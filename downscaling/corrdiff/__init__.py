"""Ensembles of km-scale fields from coarse ones: a regression of the mean, and a diffusion of what it leaves."""
