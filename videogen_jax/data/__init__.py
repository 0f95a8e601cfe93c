"""Training data: corpora of video files, decoding, prepared data sets and loaders."""
