"""Exports a fitted detector to one file: the exported function, its formats, and the check."""
