"""What a program costs on a pod that is not there."""
