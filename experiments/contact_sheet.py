"""Starts the program of this name, which is described in imvad_jax/programs/contact_sheet.py."""

from imvad_jax.programs import contact_sheet, program

if __name__ == "__main__":
    program.start(contact_sheet)
