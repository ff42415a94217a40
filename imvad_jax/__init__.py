"""imvad_jax: visual anomaly detection for industrial inspection in JAX/Flax."""

__version__ = "0.1.0"
