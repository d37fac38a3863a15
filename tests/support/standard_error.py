"""What the command line writes on standard error."""


def is_one_sentence(err: str) -> bool:
    """Return whether standard error holds one error of mser, without a traceback."""
    lines = err.splitlines()
    return len(lines) == 1 and lines[0].startswith("mser: ") and "Traceback" not in err


def is_leakage_check(err: str) -> bool:
    """Return whether standard error holds the leakage check and nothing else."""
    first, *lines = err.splitlines()
    reported = all(line.startswith("  ") and " share " in line for line in lines)
    return first.startswith("mser: leakage check of ") and lines != [] and reported
