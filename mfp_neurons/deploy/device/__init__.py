"""C99 for small devices: hand-written primitives, and the tables and calls written for one network."""
