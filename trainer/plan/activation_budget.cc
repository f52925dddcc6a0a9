#include "trainer/plan/activation_budget.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <limits>

#include "trainer/ops/tree_attention_cuda.h"
#include "trainer/plan/memory_model.h"
#include "trainer/plan/process_memory.h"

namespace plural::trainer {
namespace {

// What the driver has left, and what libtorch's allocator holds and does not use.
std::int64_t FreeBytesOnGpu(at::Device device) {
  constexpr auto kAll = static_cast<std::size_t>(at::CachingAllocator::StatType::AGGREGATE);
  const auto stats = at::accelerator::getDeviceStats(device.index());
  const auto left = static_cast<std::int64_t>(at::accelerator::getMemoryInfo(device.index()).first);
  const std::int64_t idle = stats.reserved_bytes[kAll].current - stats.allocated_bytes[kAll].current;
  return static_cast<std::int64_t>(kUsedOnGpu * static_cast<double>(left + idle));
}

std::int64_t FreeBytes(at::Device device, const dist::World& world) {
  if (device.is_cuda()) return FreeBytesOnGpu(device);
  return AvailableBytes() / 10 * 9 / world.LocalSize();
}

std::int64_t BudgetOf(const std::string& checkpointing, std::int64_t bytes, at::Device device,
                      const dist::World& world) {
  if (checkpointing == "on") return 0;
  if (checkpointing == "off") return std::numeric_limits<std::int64_t>::max();
  return bytes > 0 ? bytes : FreeBytes(device, world);
}

}  // namespace

ActivationBudget::ActivationBudget(const std::string& checkpointing, std::int64_t bytes, const Decoder& model,
                                   const dist::World& world)
    : model_(model),
      chooses_(checkpointing == "auto"),
      tree_kernel_(model.Device().is_cuda() &&
                   TreeKernelServes(model.Config().Attention(), model.DType(), model.Device())),
      bytes_(BudgetOf(checkpointing, bytes, model.Device(), world)) {}

std::int64_t ActivationBudget::BytesOf(const data::RowPass& pass) const {
  const auto element_bytes = static_cast<std::int64_t>(at::elementSize(model_.DType()));
  return MemoryOfPass(model_.Config(), model_.Adapter(), element_bytes, false, pass, model_.Device(),
                      tree_kernel_)
      .PeakBytes();
}

// Recognition is never recomputed: one backward goes through several of its passes, and a parameter's
// gradient must be whole when it is sent.
bool ActivationBudget::Recomputes(const data::RowPass& pass) const {
  return pass.kind == data::PassKind::kPrediction && BytesOf(pass) > bytes_;
}

bool ActivationBudget::LowerFor(std::span<const data::RowPass> passes) {
  std::int64_t largest = 0;
  for (const data::RowPass& pass : passes) {
    if (pass.kind == data::PassKind::kPrediction && !Recomputes(pass)) {
      largest = std::max(largest, BytesOf(pass));
    }
  }
  if (!chooses_ || largest == 0) return false;
  bytes_ = largest - 1;
  return true;
}

}  // namespace plural::trainer
