"""Tests of the limited-area use case."""
