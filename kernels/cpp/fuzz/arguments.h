// The command line, and what it may say.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "../select.h"
#include "plant.h"
#include "wide.h"

namespace fuzz {

constexpr const char* USAGE =
    "usage: fuzz [--seed S] [--first I] [--problems N] [--isa NAME]... [--plant FAULT] [--describe]\n"
    "  Problems I .. I + N - 1 of seed S (1, 0, 1000), on every instruction set of this CPU and on `wide`, the code for\n"
    "  vectors of 16 floats compiled for this CPU; or on those that are named. --plant puts a fault in, to be found.\n"
    "  Exit code: 0 all right, 1 a mismatch (one line each: how to repeat it, what is wrong), 2 usage.\n";

struct Arguments {
  std::uint64_t seed = 1;
  long first = 0, problems = 1000;
  Plant plant = Plant::none;
  bool describe = false;
  std::vector<const sparsebench::Loops*> loops;
};

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "fuzz: %s\n%s", what.c_str(), USAGE);
  std::exit(2);
}

inline std::vector<const sparsebench::Loops*> all_loops() {
  std::vector<const sparsebench::Loops*> all = sparsebench::runnable_loops();
  all.push_back(&sparsebench::loops_wide);
  return all;
}

inline const sparsebench::Loops* loops_named(std::string_view name) {
  std::string names;
  for (const sparsebench::Loops* loops : all_loops()) {
    if (name == loops->name) return loops;
    names += std::string(" ") + loops->name;
  }
  fail("this CPU does not run --isa " + std::string(name) + "; it runs" + names);
}

inline Plant plant_named(std::string_view name) {
  std::string names;
  for (std::size_t i = 0; i < std::size(PLANT_NAMES); ++i) {
    if (name == PLANT_NAMES[i]) return static_cast<Plant>(i);
    names += std::string(" ").append(PLANT_NAMES[i]);
  }
  fail("--plant " + std::string(name) + " is none of" + names);
}

inline long number(std::string_view option, const char* text) {
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*text == '\0' || *end != '\0' || value < 0) fail(std::string(option) + " takes a whole number, not " + text);
  return value;
}

inline Arguments parse(int count, char** words) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string_view option = words[i];
    if (option == "--describe") {
      arguments.describe = true;
      continue;
    }
    if (i + 1 == count) fail("what is " + std::string(option) + "?");
    const char* const value = words[++i];
    if (option == "--seed") {
      arguments.seed = number(option, value);
    } else if (option == "--first") {
      arguments.first = number(option, value);
    } else if (option == "--problems") {
      arguments.problems = number(option, value);
    } else if (option == "--isa") {
      arguments.loops.push_back(loops_named(value));
    } else if (option == "--plant") {
      arguments.plant = plant_named(value);
    } else {
      fail("what is " + std::string(option) + "?");
    }
  }
  if (arguments.loops.empty()) arguments.loops = all_loops();
  return arguments;
}

}  // namespace fuzz
