"""Programs' worth of measurements: what is measured on a device, and how it is brought back."""
