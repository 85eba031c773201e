"""What was said: rooms' logs, wherever they are kept."""
