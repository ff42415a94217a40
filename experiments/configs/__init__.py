"""One file a method: its presets, the exact command and the figure it reaches."""
