"""Training from config files, the demonstration, and the data sets that both read."""
