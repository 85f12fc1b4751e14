// SPDX-License-Identifier: MIT OR Apache-2.0
// What the Verilator runtime calls when an assertion fails: an exception, which the bridge turns
// into a Rust error, instead of the end of the process.
#include <cstdarg>
#include <cstdio>
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
// The assertion that is about to stop the model: its scope, and its text if it has one.
thread_local std::string failed;

[[noreturn]] void fail(const char* what, const char* file, int line, const char* scope) {
  const std::string where = failed.empty() ? (scope ? scope : "?") : failed;
  failed.clear();
  throw std::runtime_error(std::string(what) + " in " + where + " at " + (file ? file : "?") + ":" +
                           std::to_string(line));
}
}  // namespace

extern "C" int tlproof_print(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const std::string line = text;
  const std::string mark = "Assertion failed in ";
  const size_t at = line.find(mark);
  if (at == std::string::npos) {
    std::fputs(text, stderr);
  } else {
    failed = line.substr(at + mark.size());
    failed.erase(failed.find_last_not_of(": \n") + 1);
  }
  return length;
}

void vl_finish(const char* file, int line, const char* scope) {
  fail("$finish", file, line, scope);
}

void vl_stop(const char* file, int line, const char* scope) {
  fail("assertion failed", file, line, scope);
}

void vl_fatal(const char* file, int line, const char* scope, const char* message) {
  fail(message ? message : "$fatal", file, line, scope);
}
