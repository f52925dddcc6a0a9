#include "trainer/run/fault.h"

#include <ATen/core/Tensor.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "trainer/base/error.h"

namespace plural::trainer {

#ifdef PLURAL_FAULTS

namespace {

// Ends or holds the process; returns for the kinds that only change numbers.
void Strike(const std::string& kind) {
  if (kind == "kill") std::raise(SIGKILL);
  if (kind == "segv") std::raise(SIGSEGV);
  if (kind == "abort") std::abort();
  if (kind == "stop") std::raise(SIGSTOP);
  if (kind == "exit") _exit(3);
  if (kind == "throw") throw std::runtime_error("a fault on purpose (PLURAL_FAULT)");
  if (kind == "sleep") {
    for (;;) sleep(1000);
  }
  if (kind == "spin") {
    for (volatile bool forever = true; forever;) continue;
  }
}

}  // namespace

Fault::Fault(int rank) {
  const char* text = std::getenv("PLURAL_FAULT");
  if (text == nullptr || *text == '\0') return;
  std::array<char, 16> kind{};
  int of_rank = 0, end = 0;
  long long step = 0;
  if (std::sscanf(text, "%15[a-z]@%d:%lld%n", kind.data(), &of_rank, &step, &end) != 3 || text[end] != '\0') {
    throw ExitError(ExitCode::kUsage, std::string("PLURAL_FAULT is '") + text + "'; it is KIND@RANK:STEP");
  }
  if (of_rank != rank) return;
  kind_ = kind.data();
  step_ = step;
}

void Fault::Before(std::int64_t step, dist::FlatParameters& parameters) const {
  if (kind_ == "torn" && step > step_) std::raise(SIGKILL);
  if (kind_.empty() || step != step_) return;
  Strike(kind_);
  const at::Tensor first = parameters.Values().narrow(0, 0, 1);
  if (kind_ == "nan") first.fill_(std::numeric_limits<double>::quiet_NaN());
  if (kind_ == "bitflip") *static_cast<unsigned char*>(first.data_ptr()) ^= 1;
}

#else

Fault::Fault(int /*rank*/) {}
void Fault::Before(std::int64_t /*step*/, dist::FlatParameters& /*parameters*/) const {}

#endif

}  // namespace plural::trainer
