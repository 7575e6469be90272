"""Where samples come from: one file a kind of data set, each giving a training and a test :class:`Source`."""
