"""Pure array functions under jit; no Flax."""
