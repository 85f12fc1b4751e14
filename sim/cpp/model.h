// SPDX-License-Identifier: MIT OR Apache-2.0
// One interface over all Verilated models: words in, words out, one call a cycle.
#pragma once

#include <cstdint>
#include <memory>

#include "rust/cxx.h"

namespace tlproof {

class Model {
 public:
  virtual ~Model() = default;
  // One clock cycle: drives `in`, settles, samples `out` as it stands before the rising edge,
  // then clocks.
  virtual void cycle(rust::Slice<const uint32_t> in, rust::Slice<uint32_t> out) = 0;
  // Up to `max` cycles with constant inputs; stops after the first active one. `out` is
  // that of the last cycle. Returns the number of cycles.
  virtual uint64_t run_idle(rust::Slice<const uint32_t> in, rust::Slice<uint32_t> out,
                            uint64_t max) = 0;
  // `cycles` cycles with constant inputs and no look at the outputs.
  virtual void clock(rust::Slice<const uint32_t> in, uint64_t cycles) = 0;
  virtual void trace_open(rust::Str path) = 0;
  virtual void trace_close() = 0;
};

std::unique_ptr<Model> new_model(rust::Str name);

}  // namespace tlproof
