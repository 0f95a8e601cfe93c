"""Training data: the embedded shapes world, its vocabulary, video files and loaders."""
