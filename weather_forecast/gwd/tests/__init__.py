"""Tests of the gravity-wave-drag use case."""
