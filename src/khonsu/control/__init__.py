"""The control plane: thin loops over the pure rules of `khonsu.core`."""
