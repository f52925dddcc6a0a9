#include "trainer/commands/doctor_speed.h"

#include <algorithm>
#include <cstdio>
#include <exception>

#include "dist/collectives.h"
#include "trainer/commands/compute_device.h"
#include "trainer/commands/gpu_arithmetic.h"
#include "trainer/run/profile.h"

namespace plural::trainer {
namespace {

// A size that also a slow core multiplies in a tenth of a second, and that no cache of a core holds.
constexpr std::int64_t kSizeOnCpu = 512;
constexpr double kSecondsOnCpu = 0.1;

std::string InUnit(double flops_per_second, double unit) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", flops_per_second / unit);
  return text;
}

}  // namespace

RankSpeed MeasureSpeed(const dist::World& world) {
  RankSpeed speed;
  speed.cpu = MeasureMultiply(kSizeOnCpu, at::kFloat, at::kCPU, kSecondsOnCpu);
  if (!UsesCuda("auto", "bf16")) return speed;
  try {
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(dist::LocalCudaDevice(world)));
    SetGpuArithmetic(/*deterministic=*/false);
    speed.gpu = MeasureMultiplyPeak(at::kBFloat16, device);
  } catch (const std::exception& error) {  // a finding, like the others
    const std::string what = error.what();
    speed.gpu_problem = what.substr(0, what.find('\n'));
  }
  return speed;
}

std::string SpeedText(const std::vector<double>& flops_per_second) {
  const auto [least, most] = std::ranges::minmax(flops_per_second);
  const bool tera = least >= 1e12;
  const std::string low = InUnit(least, tera ? 1e12 : 1e9), high = InUnit(most, tera ? 1e12 : 1e9);
  return (low == high ? low : low + " to " + high) + (tera ? " TFLOP/s" : " GFLOP/s");
}

std::string SlowRankNote(const std::vector<double>& flops_per_second, const std::string& what) {
  const auto slowest = std::ranges::min_element(flops_per_second);
  const auto fastest = std::ranges::max_element(flops_per_second);
  if (*slowest >= 0.5 * *fastest) return "";
  const auto rank = [&](auto at) { return "rank " + std::to_string(at - flops_per_second.begin()); };
  return rank(slowest) + ": " + what + " run at " + SpeedText({*slowest}) + ", those of " + rank(fastest) +
         " at " + SpeedText({*fastest}) +
         ", and every step waits for the slowest: look there for other programs, a lower clock, fewer "
         "threads";
}

std::string Verdict(bool faults, std::size_t ranks, std::size_t gpus_computing) {
  if (faults) return "Training cannot work here.";
  if (gpus_computing == 0) return "Training on CPUs can work here.";
  if (gpus_computing == ranks) return "Training on GPUs can work here, and on CPUs.";
  return "Training on CPUs can work here, but on GPUs not with all of these ranks.";
}

}  // namespace plural::trainer
