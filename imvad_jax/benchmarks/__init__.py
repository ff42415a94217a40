"""Measurements of speed and memory, and their reports."""
