// SPDX-License-Identifier: MIT OR Apache-2.0
// What the Verilator runtime calls when an assertion fails: an exception, which the bridge turns
// into a Rust error, instead of the end of the process.
#include <mutex>
#include <stdexcept>
#include <string>

#include "verilated.h"

namespace tlproof {
std::mutex& trace_mutex() {
  static std::mutex mutex;
  return mutex;
}
}  // namespace tlproof

namespace {
[[noreturn]] void fail(const char* what, const char* file, int line, const char* scope) {
  throw std::runtime_error(std::string(what) + " in " + (scope ? scope : "?") + " at " +
                           (file ? file : "?") + ":" + std::to_string(line));
}
}  // namespace

void vl_finish(const char* file, int line, const char* scope) {
  fail("$finish", file, line, scope);
}

void vl_stop(const char* file, int line, const char* scope) {
  fail("assertion failed", file, line, scope);
}

void vl_fatal(const char* file, int line, const char* scope, const char* message) {
  fail(message ? message : "$fatal", file, line, scope);
}
