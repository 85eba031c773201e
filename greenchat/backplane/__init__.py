"""Several servers that are one chat, on Redis, which keeps the order, and who has which name."""
