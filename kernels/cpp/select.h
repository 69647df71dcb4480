// Which loops this processor can run.
#pragma once
#include <string>
#include <vector>

#include "loops.h"

namespace sparsebench {

// Those that were compiled in and that this CPU runs, the widest first.
std::vector<const Loops*> runnable_loops();

}  // namespace sparsebench
