"""The compiled module of `kernels/obs/_obs.pyx`: addresses are integers, and nothing is checked here."""

def best_isa() -> str: ...
def trace(
    weights: int,
    inverse: int,
    least: int,
    pruned: int,
    order: int,
    losses: int,
    keys: int,
    *,
    rows: int,
    columns: int,
    steps: int,
    group: int,
    groups: int,
    most: int,
    isa: str,
    threads: int,
) -> None: ...
def replay(
    weights: int,
    inverse: int,
    least: int,
    order: int,
    counts: int,
    results: int,
    *,
    rows: int,
    columns: int,
    steps: int,
    levels: int,
    isa: str,
    threads: int,
) -> None: ...
