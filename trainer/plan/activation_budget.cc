#include "trainer/plan/activation_budget.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Tensor.h>

#include <limits>

#include "trainer/plan/memory_model.h"
#include "trainer/plan/process_memory.h"

namespace plural::trainer {
namespace {

std::int64_t FreeBytes(at::Device device, const dist::World& world) {
  if (device.is_cuda())
    return static_cast<std::int64_t>(at::accelerator::getMemoryInfo(device.index()).first);
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
    : model_(model), bytes_(BudgetOf(checkpointing, bytes, model.Device(), world)) {}

bool ActivationBudget::Recomputes(const data::RowPass& pass) const {
  const auto element_bytes = static_cast<std::int64_t>(at::elementSize(model_.DType()));
  return MemoryOfPass(model_.Config(), model_.Adapter(), element_bytes, false, pass).PeakBytes() > bytes_;
}

}  // namespace plural::trainer
