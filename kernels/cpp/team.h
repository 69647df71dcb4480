// The threads that share one piece of work, and the memory that each of them keeps from call to call.
#pragma once
#include <omp.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace sparsebench {

struct Team {
  int rank = 0, size = 1;

  void barrier() const {
    if (size > 1) {
#pragma omp barrier
    }
  }
  // This member's share of `count` things: [.., ..).
  std::pair<int, int> share(int count) const {
    return {static_cast<int>(std::int64_t{count} * rank / size), static_cast<int>(std::int64_t{count} * (rank + 1) / size)};
  }
};

template <class Work>
void together(int threads, Work&& work) {
  if (threads <= 1) return work(Team{});
#pragma omp parallel num_threads(threads)
  work(Team{omp_get_thread_num(), omp_get_num_threads()});
}

// Hands out 0 .. count - 1 to whoever comes: what a piece is never depends on who takes it.
class Counter {
 public:
  int next() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<int> next_{0};
};

// Memory that grows and is kept. What is padding for its owner is zero, in so many slots, since it was last cleared.
class Buffer {
 public:
  // [count] floats on a cache line; throws std::bad_alloc.
  float* reserve(std::int64_t count) {
    if (count > size_ || !memory_) {
      memory_.reset();  // before the new one is made: the largest call needs no more than itself
      size_ = 0;
      float* made = static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64));
      if (made == nullptr) throw std::bad_alloc();
      memory_.reset(made);
      size_ = count;
      owner_ = 0;
    }
    return memory_.get();
  }
  float* data() const { return memory_.get(); }
  // Whether it was last used by the same owner for as many slots, so that what is padding still is zero.
  bool claim(std::uint64_t owner, int slots) {
    const bool same = owner_ == owner && slots_ == slots;
    owner_ = owner;
    slots_ = slots;
    return same;
  }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  std::unique_ptr<float, Free> memory_;
  std::int64_t size_ = 0;
  std::uint64_t owner_ = 0;
  int slots_ = 0;
};

// What one member of a team works in.
struct Scratch {
  Buffer input, grad, product;
};

// The scratch of a team led by the calling thread: layers share it, for nothing in it outlives a call.
inline std::vector<Scratch>& scratch_of_this_thread(int members) {
  thread_local std::vector<Scratch> all;
  if (static_cast<int>(all.size()) < members) all.resize(members);
  return all;
}

}  // namespace sparsebench
