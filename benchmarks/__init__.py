"""What dsm costs, beside the same work by message passing in the same run: `python -m benchmarks micro`."""
