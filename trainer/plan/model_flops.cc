#include "trainer/plan/model_flops.h"

#include <algorithm>
#include <string>

namespace plural::trainer {
namespace {

bool FeedsAttention(const LinearShape& linear) {
  return linear.path.starts_with("self_attn.") && linear.Name() != "o_proj";
}

// A row sees its path and itself, as far as the window reaches (0: all); padding has no path key.
double VisiblePairs(const data::RowPass& pass, std::int64_t window) {
  double pairs = 0.0;
  for (std::size_t row = 0; row < pass.position.size(); ++row) {
    if (pass.path_key[row] == 0) continue;
    const std::int64_t seen = pass.position[row] + 1;
    pairs += static_cast<double>(window > 0 ? std::min(seen, window) : seen);
  }
  return pairs;
}

}  // namespace

double ModelFlops(const ModelConfig& config, const AdapterSettings* adapter, const data::RowPass& pass) {
  const auto rows = static_cast<double>(pass.rows);
  double sources = 0.0;
  std::int32_t last_source = -1;
  for (const data::Edge& edge : pass.edges) {
    if (edge.likelihood == 0.0 && edge.unlikelihood == 0.0) continue;  // no loss reads it
    sources += edge.source != last_source ? 1.0 : 0.0;
    last_source = edge.source;
  }
  const double all_pairs = VisiblePairs(pass, 0);
  const double pairs_in_window = VisiblePairs(pass, config.sliding_window);

  const bool all_trained = adapter == nullptr;
  const auto adapted = [&](const std::string& linear) {
    return adapter != nullptr &&
           std::find(adapter->targets.begin(), adapter->targets.end(), linear) != adapter->targets.end();
  };
  const auto linear_flops = [&](const LinearShape& shape, double of_rows, bool input_gradient) {
    const double products = 1.0 + (input_gradient ? 1.0 : 0.0) + (all_trained ? 1.0 : 0.0);
    double flops = products * 2.0 * of_rows * static_cast<double>(shape.in_features * shape.out_features);
    if (adapted(shape.Name())) {
      flops += 6.0 * of_rows * static_cast<double>(adapter->rank * (shape.in_features + shape.out_features));
    }
    return flops;
  };

  double flops = linear_flops(config.LinearNamed("lm_head"), sources, true);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const bool first = layer == 0, last = layer + 1 == config.num_hidden_layers;
    for (const LinearShape& linear : config.LayerLinears()) {
      const bool feeds = FeedsAttention(linear);
      flops += linear_flops(linear, last && !feeds ? sources : rows, all_trained || !(first && feeds));
    }
    const double pairs = config.HasWindow(layer) ? pairs_in_window : all_pairs;
    flops += 12.0 * pairs * static_cast<double>(config.num_attention_heads * config.head_dim);
  }
  return flops;
}

}  // namespace plural::trainer
