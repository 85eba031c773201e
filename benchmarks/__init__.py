"""How fast greenchat is, beside what a user could pick instead: ``python -m benchmarks NAME``."""
