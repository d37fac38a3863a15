"""HBAF: heterogeneous bimodal attention fusion."""
