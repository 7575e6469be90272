"""From a torch model to a graph of whole numbers: the part of deployment that knows torch."""
