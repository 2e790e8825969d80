"""Opening an image's files."""
