"""torch.compile runs sparse layers outside its graph and says so; without it, its compiler is not imported."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import torch
from torch import nn
from sparsebench.nn import SparseLinear

class Backend:
    def unsupported(self, problem): return None
    def bind(self, problem, weight): return Kernel(weight)
class Kernel:
    def __init__(self, weight): self.weight = weight
    def forward(self, x, bias=None): return nn.functional.linear(x, self.weight.to_dense(), bias)
    def set_values(self, values): self.weight = self.weight.with_values(values)

layer = SparseLinear.from_dense(nn.Linear(16, 6), Backend())
layer(torch.ones(2, 16))
import sys
assert "torch._dynamo" not in sys.modules, "imported though nothing is compiled"
explained = torch._dynamo.explain(lambda x: layer(x + 1) * 2)(torch.ones(2, 16))
assert explained.graph_break_count >= 1, explained
assert any("sparse kernels outside the graph" in str(b.reason) for b in explained.break_reasons), explained
model = nn.Sequential(layer, nn.ReLU())
compiled = torch.compile(model, backend="eager")
torch.testing.assert_close(compiled(torch.ones(2, 16)), model(torch.ones(2, 16)))
torch._dynamo.reset()
try:
    torch.compile(model, backend="eager", fullgraph=True)(torch.ones(2, 16))
except Exception as error:
    assert "sparse kernels outside the graph" in str(error), error
else:
    raise AssertionError("fullgraph did not raise")
"""


def test_the_graph_breaks_and_says_why():
    done = subprocess.run([sys.executable, "-P", "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
