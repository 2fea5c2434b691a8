"""Emulation of non-orographic gravity-wave drag."""
