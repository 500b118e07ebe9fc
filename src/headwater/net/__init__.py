"""Where outgoing connections may go."""
