"""Images and splits."""
