// Times the loops: the best of a few short repetitions, on one thread or on several at once.
//
// The best and not the median, because this asks what the machine can do, and all that goes wrong only takes time. All
// threads start from a barrier and the clock stops at the last one's end. Each reads memory that it wrote itself, so that
// it lies where that thread runs.
#include "measure.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "ceilings.h"

namespace {

constexpr long LINE = 1024;

volatile unsigned sink;

bool runs_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

bool runs_avx512() {
#if defined(__x86_64__)
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

const CeilingLoops* loops_of(const char* isa) {
  if (strcmp(isa, "base") == 0) return &ceiling_loops_base;
#if defined(__x86_64__)
  if (strcmp(isa, "avx2") == 0 && runs_avx2()) return &ceiling_loops_avx2;
  if (strcmp(isa, "avx512") == 0 && runs_avx512()) return &ceiling_loops_avx512;
#endif
  return nullptr;
}

// While it lives each thread stays on a core of its own, if there are as many as threads: else two may be put on one for
// longer than a repetition takes.
class Spread {
 public:
  explicit Spread(int threads) : threads_(threads) {
    CPU_ZERO(&allowed_);
    if (threads == 1 || sched_getaffinity(0, sizeof allowed_, &allowed_) != 0 || CPU_COUNT(&allowed_) < threads) {
      threads_ = 0;
      return;
    }
#pragma omp parallel num_threads(threads_)
    keep(nth(omp_get_thread_num()));
  }

  ~Spread() {
    if (threads_ == 0) return;
#pragma omp parallel num_threads(threads_)
    keep(allowed_);
  }

 private:
  static void keep(const cpu_set_t& cores) { sched_setaffinity(0, sizeof cores, &cores); }

  cpu_set_t nth(int number) const {
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &allowed_) && number-- == 0) CPU_SET(core, &one);
    return one;
  }

  int threads_;
  cpu_set_t allowed_;
};

// Seconds from the first thread's start to the last one's end. The first thread reads the clock before the barrier: if it
// is held up there, the time comes out longer, never shorter.
template <class Work>
double seconds_of(int threads, const Work& work) {
  double start = 0.0, stop = 0.0;
#pragma omp parallel num_threads(threads)
  {
#pragma omp master
    start = omp_get_wtime();
#pragma omp barrier
    work(omp_get_thread_num());
#pragma omp barrier
#pragma omp master
    stop = omp_get_wtime();
  }
  return stop - start;
}

// Work per second, of work that takes `seconds` on one thread. One thread finds out how much that is: with several, the
// time of a little work is that of the barriers. The fastest of three, as a thread may be held up anywhere.
template <class Timed>
double best_rate(double work, int threads, double seconds, int repetitions, const Timed& timed) {
  const auto fastest = [&](int on, long count, int tries) {
    double best = timed(on, count);
    for (int i = 1; i < tries; ++i) {
      const double took = timed(on, count);
      if (took < best) best = took;
    }
    return best;
  };
  long count = 1;
  for (double took = fastest(1, 1, 3); took < seconds / 2; took = fastest(1, count, 3)) {
    const double times = took > 0 ? seconds / took : 8;
    count = times > 8 ? count * 8 : static_cast<long>(static_cast<double>(count) * times) + 1;
  }
  return work * static_cast<double>(count) * threads / fastest(threads, count, repetitions);
}

}  // namespace

const char* ceiling_best_isa(void) { return runs_avx512() ? "avx512" : runs_avx2() ? "avx2" : "base"; }

double ceiling_flops(const char* isa, int threads, double seconds, int repetitions) {
  const CeilingLoops* loops = loops_of(isa);
  if (loops == nullptr) return -1;
  const Spread spread(threads);
  const double operations = loops->multiply_add(1000);
  return best_rate(operations, threads, seconds, repetitions, [&](int on, long count) {
    return seconds_of(on, [&](int) { loops->multiply_add(1000 * count); });
  });
}

double ceiling_bandwidth(const char* isa, long bytes, int threads, double seconds, int repetitions) {
  const CeilingLoops* loops = loops_of(isa);
  if (loops == nullptr) return -1;
  const Spread spread(threads);
  const long each = (bytes + LINE - 1) / LINE * LINE;
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, static_cast<size_t>(each) * static_cast<size_t>(threads)) != 0) return -2;
  char* data = static_cast<char*>(memory);
  seconds_of(threads, [&](int thread) { memset(data + each * thread, thread + 1, static_cast<size_t>(each)); });
  const double rate = best_rate(static_cast<double>(each), threads, seconds, repetitions, [&](int on, long count) {
    return seconds_of(on, [&](int thread) { sink = loops->read(data + each * thread, each, count); });
  });
  free(memory);
  return rate;
}
