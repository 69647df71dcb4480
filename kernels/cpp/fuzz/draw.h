// Random draws that are the same on every machine: the standard library's distributions are not.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace fuzz {

class Draw {
 public:
  Draw(std::uint64_t seed, std::uint64_t index) : state_(seed * 0x9e3779b97f4a7c15u + index) { next(); }

  // splitmix64 (Steele, Lea, Flood 2014).
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // A whole number of [low, high].
  int from(int low, int high) { return low + static_cast<int>(next() % static_cast<std::uint64_t>(high - low + 1)); }
  // The same, small ones as often as large ones: uniform in the logarithm.
  int small(int low, int high) {
    const double x = std::exp(share() * std::log((high + 1.0) / low));
    return std::min(high, static_cast<int>(low * x));
  }
  double share() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) { return share() < probability; }
  // 24 random bits in [-1, 1), so that every product is rounded.
  float number() { return static_cast<float>(static_cast<std::int64_t>(next() >> 39) - (1 << 24)) * 0x1p-24f; }
  template <class T>
  T one_of(std::initializer_list<T> all) {
    return all.begin()[from(0, static_cast<int>(all.size()) - 1)];
  }

 private:
  std::uint64_t state_;
};

}  // namespace fuzz
