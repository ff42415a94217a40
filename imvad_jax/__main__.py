"""`python -m imvad_jax COMMAND`: the console command `imvad` without its script."""

from imvad_jax.programs import cli

if __name__ == "__main__":
    cli.main("python -m imvad_jax")
