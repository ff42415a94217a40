"""The suite: in a few minutes on a device, the figures that matter."""
