"""The cost of a program on a TPU pod, estimated by compiling for it on a host without TPUs."""
