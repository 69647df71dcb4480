"""One file per kind of case: what to build, what to time, what to score."""
