"""Fitting and scoring: the phases of a detector, compiled, on one device or many."""
