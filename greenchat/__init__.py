"""A chat room and a file exchange for the terminal, on green threads."""
