// SPDX-License-Identifier: MIT OR Apache-2.0
// Stands before every source of the Verilator runtime.
#pragma once

// What the runtime prints: the text of a failed assertion comes so, before the call of vl_stop.
extern "C" int tlproof_print(const char* format, ...) __attribute__((format(printf, 1, 2)));
#define VL_PRINTF tlproof_print
