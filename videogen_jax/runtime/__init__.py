"""What every command needs of the machine: flags, the compilation cache, memory, files."""
