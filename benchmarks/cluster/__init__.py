"""Several virtual hosts on one machine, with links of a chosen rate."""
