// Says which problem it was when one crashes, is stopped by a sanitizer, or does not end.
#pragma once
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <string>

namespace fuzz {

constexpr unsigned PATIENCE = 600;  // seconds for one problem, of which it may be stopped for most

inline char current[200];  // how to repeat the problem that is being computed

inline void tell(const char* what) {
  const char* const parts[] = {current, ": ", what, "\n"};
  for (const char* part : parts) {
    if (write(STDOUT_FILENO, part, std::strlen(part)) < 0) return;
  }
}

inline void on_signal(int signal) {
  tell(signal == SIGALRM ? "it does not end" : "it crashed");
  _exit(1);
}

inline void watch(const std::string& repeat) {
  std::strncpy(current, repeat.c_str(), sizeof current - 1);
  alarm(PATIENCE);
}

inline void start_watching() {
#if defined(FUZZ_SANITIZED)
  for (int signal : {SIGALRM, SIGABRT}) ::signal(signal, on_signal);
#else
  for (int signal : {SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) ::signal(signal, on_signal);
#endif
}

}  // namespace fuzz

#if defined(FUZZ_SANITIZED)
extern "C" void __sanitizer_set_death_callback(void (*callback)());
// New memory is NaN (bytes of 255), and a report is an exit code of its own.
extern "C" const char* __asan_default_options() {
  return "malloc_fill_byte=255:max_malloc_fill_size=1073741824:detect_leaks=1:exitcode=1";
}
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:abort_on_error=1"; }
#endif
