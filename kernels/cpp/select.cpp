#include "select.h"

namespace sparsebench {

std::vector<const Loops*> runnable_loops() {
  std::vector<const Loops*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // What -march=x86-64-v4 and -v3 let the compiler use, as far as it does in these loops.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
    found.push_back(&loops_avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    found.push_back(&loops_avx2);
#endif
  found.push_back(&loops_base);
  return found;
}

}  // namespace sparsebench
