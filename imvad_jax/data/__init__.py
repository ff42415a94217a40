"""From files to batches. TensorFlow is imported inside `pipeline` and `tfds` only, when used."""
