"""Trainable blocks that several methods share."""
