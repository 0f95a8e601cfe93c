"""The networks whose features the published metrics are measured in, with readers of their public weights."""
