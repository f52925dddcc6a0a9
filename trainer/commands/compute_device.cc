#include "trainer/commands/compute_device.h"

#include <ATen/Context.h>

#include <array>
#include <iostream>
#include <string>

#include "dist/agreement.h"
#include "dist/gpu_driver.h"
#include "trainer/base/error.h"
#include "trainer/commands/gpu_arithmetic.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/run/cache_check.h"
#include "trainer/run/device_check.h"

namespace plural::trainer {

bool UsesCuda(const std::string& device, const std::string& dtype) {
  if (device == "cpu" || dtype == "fp64") return false;
  if (device == "cuda") return true;
  // The libraries of a GPU take seconds to load and 340 MiB; the driver alone says whether there is one.
  if (dist::ProbeGpuDriver().devices.empty()) return false;
  return dist::NcclCompiled() && dist::NcclProblem().empty() && at::hasCUDA();
}

bool AllUseCuda(bool here, const dist::World& world, dist::Collectives& collectives) {
  std::array<double, 1> ranks = {here ? 1.0 : 0.0};
  collectives.AllReduceSum(ranks);
  const auto with = static_cast<int>(ranks[0]);
  if (world.Rank() == 0 && with > 0 && with < world.Size()) {
    std::cerr
        << "plural: warning: " << world.Size() - with << " of " << world.Size()
        << " ranks can use no GPU (plural doctor says why), so that device auto computes on the CPU on all "
           "of them; with device cuda such a start ends\n";
  }
  return with == world.Size();
}

at::Device OpenDevice(const ComputeOptions& options, const dist::World& world,
                      dist::Collectives& collectives) {
  if (options.device == "cuda" && options.dtype == "fp64") {
    dist::FailTogether(world, collectives,
                       ExitError(ExitCode::kUsage,
                                 "--device cuda: fp64 is computed on the CPU only; leave --device out, or "
                                 "give --dtype fp32 or bf16"));
  }
  if (!AllUseCuda(UsesCuda(options.device, options.dtype), world, collectives)) return at::kCPU;
  const int device = dist::TakeCudaDevice(world, collectives);  // opens the GPU part of libtorch
  SetGpuArithmetic(/*deterministic=*/false);
  const std::string missing = KernelWarning(collectives.AllGather(KernelsProblem()));
  if (world.Rank() == 0 && !missing.empty()) std::cerr << "plural: warning: " << missing << "\n";
  return {at::kCUDA, static_cast<at::DeviceIndex>(device)};
}

void RequireDeviceServes(const Decoder& model) {
  if (!model.Device().is_cuda()) return;
  RequireHeadDimension(model.Config(), model.DType(), model.Device());
  CheckAttention(model.Config(), model.DType(), model.Device());
}

void RequireDeviceGenerates(const Decoder& model) {
  RequireDeviceServes(model);
  if (!model.Device().is_cuda()) return;
  CheckCacheAttention(model.Config(), model.DType(), model.Device(), KernelsOf(model.Device()));
}

}  // namespace plural::trainer
