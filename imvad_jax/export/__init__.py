"""A fitted detector as one file: the function that is exported, its formats, and the check."""
