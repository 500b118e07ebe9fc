"""Moving: items of our own storage get other paths. No byte is touched, because keys there follow no path."""
