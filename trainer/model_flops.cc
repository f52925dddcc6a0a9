#include "trainer/model_flops.h"

#include <algorithm>
#include <array>
#include <string>

#include "trainer/linear_shapes.h"

namespace plural::trainer {
namespace {

constexpr std::array<const char*, 7> kLayerLinears = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                      "gate_proj", "up_proj", "down_proj"};

bool FeedsAttention(const std::string& linear) {
  return linear == "q_proj" || linear == "k_proj" || linear == "v_proj";
}

}  // namespace

double ModelFlops(const ModelConfig& config, const AdapterSettings* adapter, const data::RowPass& pass) {
  const auto rows = static_cast<double>(pass.rows);
  double sources = 0.0;
  std::int32_t last_source = -1;
  for (const data::Edge& edge : pass.edges) {
    sources += edge.source != last_source ? 1.0 : 0.0;
    last_source = edge.source;
  }
  // A row sees its path and itself, as far as the window reaches; padding has no path key.
  double pairs = 0.0;
  for (std::size_t row = 0; row < pass.position.size(); ++row) {
    if (pass.path_key[row] == 0) continue;
    const std::int64_t seen = pass.position[row] + 1;
    pairs += static_cast<double>(config.sliding_window > 0 ? std::min(seen, config.sliding_window) : seen);
  }

  const bool all_trained = adapter == nullptr;
  const auto adapted = [&](const std::string& linear) {
    return adapter != nullptr &&
           std::find(adapter->targets.begin(), adapter->targets.end(), linear) != adapter->targets.end();
  };
  const auto linear_flops = [&](const std::string& linear, double of_rows, bool input_gradient) {
    const LinearShape shape = ShapeOf(config, linear);
    const double products = 1.0 + (input_gradient ? 1.0 : 0.0) + (all_trained ? 1.0 : 0.0);
    double flops = products * 2.0 * of_rows * static_cast<double>(shape.inputs * shape.outputs);
    if (adapted(linear)) {
      flops += 6.0 * of_rows * static_cast<double>(adapter->rank * (shape.inputs + shape.outputs));
    }
    return flops;
  };

  double flops = linear_flops("lm_head", sources, true);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool first = layer == 0, last = layer + 1 == config.num_hidden_layers;
    for (const std::string linear : kLayerLinears) {
      const bool feeds = FeedsAttention(linear);
      flops += linear_flops(linear, last && !feeds ? sources : rows, all_trained || !(first && feeds));
    }
    flops += 12.0 * pairs * static_cast<double>(config.num_attention_heads * config.head_dim);
  }
  return flops;
}

}  // namespace plural::trainer
