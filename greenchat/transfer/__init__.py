"""Files between two peers: what may be served, what is being received, and the bytes between them."""
