"""What networks of the zoo take on FPGAs, how fast they are there, and whether they compute the same."""
