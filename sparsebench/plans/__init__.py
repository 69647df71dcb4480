"""What `sparsebench tune` has measured on this machine: a backend's best plan for a problem, and who is fastest.

A plan is a flat mapping of a backend's own options, {"tile": 4, "layout": "packed"}; `name@layout=packed,tile=4` runs
it. A backend asks for its plan when it binds a weight:

    plan = tuned_plan("mine", problem) or self.choose(problem)

There is one JSON file for each kind of machine (processor, flags, caches, and the ISA that SPARSEBENCH_ISA forces) in
$SPARSEBENCH_PLANS, or in sparsebench/plans of the user's cache folder; with SPARSEBENCH_PLANS set to nothing none are
used. Problems are alike if op, shape, geometry, batch, dtype and threads are equal, the pattern is of one kind, and
the sparsity of one class: weights that come and go while a model trains do not miss what was measured. What another
version of the kernels' code has measured is not used; neither is a file that cannot be read, with one warning.
"""

from sparsebench.plans.file import VARIABLE, check_writable, clear, fastest, folder, location, read, store, tuned_plan
from sparsebench.plans.keys import code_of, is_current, options_text, problem_key, sparsity_class, variant
from sparsebench.plans.records import Book, Code, Fastest, Tuned

__all__ = [
    "VARIABLE",
    "Book",
    "Code",
    "Fastest",
    "Tuned",
    "check_writable",
    "clear",
    "code_of",
    "fastest",
    "folder",
    "is_current",
    "location",
    "options_text",
    "problem_key",
    "read",
    "sparsity_class",
    "store",
    "tuned_plan",
    "variant",
]
