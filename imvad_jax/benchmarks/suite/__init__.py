"""The suite: measures the most important figures of a device within a few minutes."""
