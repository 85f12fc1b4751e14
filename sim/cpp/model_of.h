// SPDX-License-Identifier: MIT OR Apache-2.0
// The interface for one Verilated class `V` with its generated port mover `P`.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "model.h"
#include "verilated.h"
#include "verilated_fst_c.h"
#if VM_COVERAGE
#include "verilated_cov.h"
#endif

namespace tlproof {

// Opening an FST file calls localtime, which is not safe in several threads.
std::mutex& trace_mutex();

template <class V, class P>
class ModelOf final : public Model {
 public:
  ModelOf() : context_(std::make_unique<VerilatedContext>()) {
    enter();
    context_->traceEverOn(true);
    model_ = std::make_unique<V>(context_.get());
  }

  ~ModelOf() override {
    enter();
    if (trace_) trace_->close();
    model_->final();
#if VM_COVERAGE
    if (const char* directory = std::getenv("TLPROOF_COVERAGE")) {
      const std::string name = std::to_string(reinterpret_cast<uintptr_t>(this)) + "-" +
                               std::to_string(context_->time()) + ".dat";
      context_->coveragep()->write((std::string(directory) + "/" + name).c_str());
    }
#endif
    model_.reset();
  }

  void cycle(rust::Slice<const uint32_t> in, rust::Slice<uint32_t> out) override {
    enter();
    P::scatter(*model_, in.data());
    settle();
    P::gather(*model_, out.data());
    rise();
  }

  uint64_t run_idle(rust::Slice<const uint32_t> in, rust::Slice<uint32_t> out,
                    uint64_t max) override {
    enter();
    P::scatter(*model_, in.data());
    for (uint64_t n = 1; n <= max; ++n) {
      settle();
      const bool last = n == max || P::active(*model_);
      if (last) P::gather(*model_, out.data());
      rise();
      if (last) return n;
    }
    return 0;
  }

  void clock(rust::Slice<const uint32_t> in, uint64_t cycles) override {
    enter();
    P::scatter(*model_, in.data());
    for (uint64_t n = 0; n < cycles; ++n) {
      settle();
      rise();
    }
  }

  void trace_open(rust::Str path) override {
    enter();
    const std::lock_guard<std::mutex> lock(trace_mutex());
    trace_ = std::make_unique<VerilatedFstC>();
    model_->trace(trace_.get(), 99);
    trace_->open(std::string(path).c_str());
    if (!trace_->isOpen()) {
      trace_.reset();
      throw std::runtime_error("cannot write waves to " + std::string(path));
    }
  }

  void trace_close() override {
    enter();
    if (trace_) trace_->close();
    trace_.reset();
  }

 private:
  // $time, $finish and scopes use the thread's current context, which is the one made last unless
  // it is set.
  void enter() { Verilated::threadContextp(context_.get()); }

  void settle() {
    model_->clk_i = 0;
    step();
  }

  void rise() {
    model_->clk_i = 1;
    step();
  }

  void step() {
    model_->eval();
    if (trace_) trace_->dump(context_->time());
    context_->timeInc(1);
  }

  std::unique_ptr<VerilatedContext> context_;
  std::unique_ptr<V> model_;
  std::unique_ptr<VerilatedFstC> trace_;
};

}  // namespace tlproof
