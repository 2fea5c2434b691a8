"""Tests of the probabilistic post-processing of hourly precipitation."""
