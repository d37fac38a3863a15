"""The commands of mser: each turns its options into one call, and prints the result."""
