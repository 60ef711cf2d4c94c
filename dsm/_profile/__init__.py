"""The profile of a run: what the ranks recorded, put together on rank 0, and what is made of it."""
