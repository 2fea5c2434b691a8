"""Probabilistic post-processing of hourly precipitation."""
