// Compares each kernel of the module with the loops of the CPU, and says how fast it is.
//
//   kernel_check --device cuda           on a GPU, in seconds; 69 where there is none or no module
//   kernel_check --device cpu [--tiny]   the kernels' own source, emulated on the host: results, no times
//   kernel_check --look                  0 where there is a GPU and a module, else 69: no kernel runs
//
// A line of JSON per kernel on standard output. Ends with 1 when one fails.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "tests/gpu/kernel_checks.h"
#include "tests/gpu/random_operand.h"
#include "tests/unit/support/emulated_kernels.h"
#include "trainer/base/error.h"

namespace plural::trainer {
namespace {

using Tensors = std::vector<at::Tensor>;

// Of one run, on a GPU.
template <class Function>
double Seconds(const Function& run) {
  const auto finish = [](const Tensors& made) { made.back().flatten().select(0, 0).item(); };
  for (int i = 0; i < 3; ++i) finish(run());
  constexpr int kRuns = 10;
  const auto start = std::chrono::steady_clock::now();
  Tensors last;
  for (int i = 0; i < kRuns; ++i) last = run();
  finish(last);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kRuns;
}

// What the card does at best.
struct Peak {
  double flops_per_second = 0, bytes_per_second = 0;
};

Peak MeasuredPeak(at::Device device) {
  const std::int64_t side = 8192;  // random operands: constants cost a GPU less power, and run faster
  const at::Tensor rows = RandomOperand({64, side}, 1, at::kBFloat16).to(device).repeat({side / 64, 1});
  const at::Tensor from = at::empty({std::int64_t{1} << 28}, at::TensorOptions(at::kFloat).device(device)),
                   to = at::empty_like(from);
  return {
      2.0 * static_cast<double>(side * side * side) / Seconds([&] { return Tensors{at::mm(rows, rows)}; }),
      2.0 * static_cast<double>(from.nbytes()) / Seconds([&] { return Tensors{to.copy_(from)}; })};
}

// Of all elements, relative to the largest that is wanted; what is not finite stays so.
double LargestRelativeError(const Tensors& found, const Tensors& wanted) {
  double largest = 0.0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const at::Tensor right = wanted[i].detach().to(at::kDouble);
    const at::Tensor difference = found[i].detach().to(at::kCPU).to(at::kDouble) - right;
    const double size = right.abs().max().item<double>();
    const double error = difference.abs().max().item<double>() / (size > 0 ? size : 1.0);
    largest = std::isfinite(error) ? std::max(largest, error) : error;
  }
  return largest;
}

// `peak`: null on the CPU, where nothing is timed.
nlohmann::ordered_json Checked(const KernelCheck& check, const Peak* peak) {
  nlohmann::ordered_json line = {{"check", check.name + (check.dtype == at::kFloat ? ", fp32" : ", bf16")},
                                 {"passed", false}};
  try {
    // First of all: some work in place, and those runs that are timed overwrite what they find.
    const double error = LargestRelativeError(check.run(), check.wanted);
    line["passed"] = error <= check.allowed_relative_error;
    if (!check.wanted.empty()) {
      line["largest_relative_difference"] = error;
      line["allowed"] = check.allowed_relative_error;
    }
    if (peak == nullptr) return line;
    const double seconds = Seconds(check.run);
    line["microseconds"] = 1e6 * seconds;
    line["gigabytes_per_second"] = check.bytes / seconds / 1e9;
    line["share_of_copy"] = check.bytes / seconds / peak->bytes_per_second;
    if (check.flops > 0) {
      line["teraflops_per_second"] = check.flops / seconds / 1e12;
      line["share_of_bf16_product"] = check.flops / seconds / peak->flops_per_second;
    }
  } catch (const std::exception& problem) {
    line["passed"] = false;
    line["error"] = problem.what();
  }
  return line;
}

// 0 where all passed.
int Run(at::Device device, bool tiny) {
  const CudaKernels kernels = device.is_cuda() ? FindCudaKernels() : testing::EmulatedKernels();
  const Peak peak = device.is_cuda() ? MeasuredPeak(device) : Peak{};
  bool failed = false;
  for (const auto& checks : {AttentionChecks, GenerationChecks, RowChecks}) {
    for (const KernelCheck& check : checks(device, tiny, kernels)) {
      const nlohmann::ordered_json line = Checked(check, device.is_cuda() ? &peak : nullptr);
      failed = failed || !line["passed"];
      std::cout << line.dump() << std::endl;
    }
  }
  return failed ? 1 : 0;
}

int Main(const std::vector<std::string>& arguments) {
  const auto given = [&](const char* word) {
    return std::find(arguments.begin(), arguments.end(), word) != arguments.end();
  };
  const bool cuda = !given("cpu");
  if (cuda) {
    std::string problem = dist::NcclProblem();
    if (problem.empty() && !at::hasCUDA()) problem = "this machine shows no CUDA device";
    if (problem.empty() && !given("--look") && !KernelsProblem().empty())
      problem = "no kernels: " + KernelsProblem();
    if (!problem.empty()) {
      std::cerr << "kernel_check: error: " << problem << "; --device cpu emulates the kernels\n";
      return static_cast<int>(ExitCode::kWrongResources);
    }
  }
  if (given("--look")) return 0;
  return Run(cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU), given("--tiny"));
}

}  // namespace
}  // namespace plural::trainer

int main(int argc, char** argv) {
  try {
    return plural::trainer::Main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "kernel_check: error: " << error.what() << "\n";
    return static_cast<int>(plural::ExitCode::kInternal);
  }
}
