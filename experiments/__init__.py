"""Command-line programs of imvad_jax (absl flags)."""
