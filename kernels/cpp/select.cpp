#include "select.h"

namespace sparsebench {

std::vector<const Loops*> runnable_loops() {
  std::vector<const Loops*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) found.push_back(&loops_avx512);
  if (__builtin_cpu_supports("x86-64-v3")) found.push_back(&loops_avx2);
#endif
  found.push_back(&loops_base);
  return found;
}

}  // namespace sparsebench
