"""Text to video: the request, the pipeline, and the programs that it compiles."""
