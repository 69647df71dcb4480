// Random problems against a naive oracle: no Python, no torch, not part of the wheel. `make fuzz`, `make fuzz-sanitized`.
//
// Everything about a problem follows from (seed, index), so a mismatch is repeated by the line that reports it. Each problem
// is computed by every instruction set in turn, with memory of its own.
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "fuzz/arguments.h"
#include "fuzz/describe.h"
#include "fuzz/draw.h"
#include "fuzz/problem.h"
#include "fuzz/session.h"
#include "fuzz/watch.h"

namespace {

constexpr int MOST_REPORTED = 10;

// New memory holds 0x7f7f7f7f, a float of 3e38: what is not written first spoils the result.
void fill_new_memory() {
#if defined(__GLIBC__)
  mallopt(M_PERTURB, 0x80);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // mapped memory would be zero
#endif
}

// OpenMP's threads must give way while they wait, for there may be more of them than cores; it reads this when it is loaded.
void wait_passively(char** words) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", words);
}

std::string how_to_repeat(const fuzz::Arguments& arguments, long index, const char* isa) {
  std::string text = "fuzz --seed " + std::to_string(arguments.seed) + " --first " + std::to_string(index) +
                     " --problems 1 --isa " + isa;
  if (arguments.plant != fuzz::Plant::none)
    text += " --plant " + std::string(fuzz::PLANT_NAMES[static_cast<int>(arguments.plant)]);
  return text;
}

// Mismatches of one problem over all instruction sets.
int run(const fuzz::Arguments& arguments, long index) {
  fuzz::Draw draw(arguments.seed, index);
  const fuzz::Problem problem = fuzz::draw_problem(draw);
  if (arguments.describe) std::printf("%ld: %s\n", index, fuzz::describe(problem).c_str());
  const std::vector<fuzz::Given> given = fuzz::give_all(problem, draw);
  int wrong = 0;
  for (const sparsebench::Loops* loops : arguments.loops) {
    const std::string repeat = how_to_repeat(arguments, index, loops->name);
    fuzz::watch(repeat);
    const fuzz::Session session(problem, given, *loops, arguments.plant);
    if (session.wrong.empty()) continue;
    std::printf("%s: %s; %s\n", repeat.c_str(), session.wrong.c_str(), fuzz::describe(problem).c_str());
    std::fflush(stdout);
    ++wrong;
  }
  return wrong;
}

}  // namespace

int main(int count, char** words) {
  wait_passively(words);
  const fuzz::Arguments arguments = fuzz::parse(count, words);
  fill_new_memory();
  fuzz::start_watching();
#if defined(FUZZ_SANITIZED)
  __sanitizer_set_death_callback([] { fuzz::tell("a sanitizer stopped it"); });
#endif
  long done = 0;
  int wrong = 0;
  for (; done < arguments.problems && wrong < MOST_REPORTED; ++done) wrong += run(arguments, arguments.first + done);
  std::string names;
  for (const sparsebench::Loops* loops : arguments.loops) names += std::string(names.empty() ? "" : ", ") + loops->name;
  std::printf("%ld problems of seed %llu from %ld on %s: %d wrong\n", done, static_cast<unsigned long long>(arguments.seed),
              arguments.first, names.c_str(), wrong);
  return wrong > 0;
}
