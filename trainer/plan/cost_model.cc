#include "trainer/plan/cost_model.h"

#include <algorithm>
#include <cmath>

#include "trainer/ops/tree_attention_cuda.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kMostRowsOnCpu = 2048;
constexpr std::int64_t kHostBytes = std::int64_t{8} << 30, kGpuBytes = std::int64_t{48} << 30;

constexpr std::int64_t kRowBudget = 1024, kRowBudgetOfKernel = 8192;

// This depends on the kind of device and the shapes, never on the card or the build at hand: a run that goes
// on elsewhere has the same passes.
bool TakesDenseMask(const ModelConfig& config, std::int64_t bytes_per_element, at::Device device) {
  return !device.is_cpu() && !HasTreeKernel(config.head_dim, bytes_per_element);
}

}  // namespace

data::CostModel CostOf(const ModelConfig& config, bool train_all_weights, std::int64_t bytes_per_element,
                       at::Device device, std::int64_t memory_bytes) {
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto intermediate = static_cast<double>(config.intermediate_size);
  const auto layers = static_cast<double>(config.num_hidden_layers);
  const auto query = static_cast<double>(config.num_attention_heads * config.head_dim);
  const auto key_value = static_cast<double>(config.num_key_value_heads * config.head_dim);
  const double products = train_all_weights ? 3.0 : 2.0;

  data::CostModel cost;
  cost.per_row = products * layers * hidden * (2.0 * query + 2.0 * key_value + 3.0 * intermediate);
  const bool dense = TakesDenseMask(config, bytes_per_element, device);
  (dense ? cost.per_row_pair : cost.per_visible_pair) = 7.0 * layers * query;

  if (memory_bytes == 0) memory_bytes = device.is_cpu() ? kHostBytes : kGpuBytes;
  // bytes = element * (activations * rows + rows^2 of a mask), solved for rows.
  const double activations = layers * (10.0 * hidden + 4.0 * intermediate);
  const double elements = static_cast<double>(memory_bytes) / static_cast<double>(bytes_per_element);
  const double rows = dense || device.is_cpu()
                          ? (std::sqrt(activations * activations + 4.0 * elements) - activations) / 2.0
                          : elements / activations;
  cost.max_rows = std::max<std::int64_t>(1, static_cast<std::int64_t>(rows));
  if (device.is_cpu()) cost.max_rows = std::min(cost.max_rows, kMostRowsOnCpu);
  return cost;
}

std::int64_t RowBudgetOf(std::int64_t asked, data::Layout layout, bool units, const ModelConfig& config,
                         std::int64_t bytes_per_element, at::Device device) {
  if (asked > 0) return asked;
  const bool many = !device.is_cpu() && !TakesDenseMask(config, bytes_per_element, device) &&
                    layout == data::Layout::kTree && !units;
  return many ? kRowBudgetOfKernel : kRowBudget;
}

}  // namespace plural::trainer
