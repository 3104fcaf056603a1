"""What the gateway knows of the cluster: slices are read, cached and kept fresh here."""
