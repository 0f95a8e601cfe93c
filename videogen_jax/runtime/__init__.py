"""Helpers shared by all commands: command lines, compilation cache, host memory, files, arrays and image sheets."""
