"""The integer network as Verilog: what its layers become, and the files that are written."""
