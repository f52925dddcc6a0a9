#include "trainer/plan/memory_model.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "trainer/model/head.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/tree_attention_cuda.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kFp32Bytes = 4;       // at least, of rotary tables and logits
constexpr std::int64_t kStatisticBytes = 8;  // of the head's fp64 values per row or edge

struct Rows {
  std::int64_t all = 0;      // fed, padding included
  std::int64_t sources = 0;  // with an edge
};

Rows RowsOf(const data::RowPass& pass) {
  Rows rows;
  rows.all = pass.batch * pass.length;
  std::int32_t last = -1;
  for (const data::Edge& edge : pass.edges) {
    rows.sources += edge.source != last ? 1 : 0;
    last = edge.source;
  }
  return rows;
}

// Elements per row.
struct Layer {
  std::int64_t attention = 0;                                        // saved by attention
  std::int64_t feed_forward = 0;                                     // saved by the rest
  std::int64_t product = 0;                                          // of these, gate times up
  std::int64_t attention_gradients = 0, feed_forward_gradients = 0;  // held at once in backward

  std::int64_t Gradients() const { return std::max(attention_gradients, feed_forward_gradients); }
};

class Shape {
 public:
  Shape(const ModelConfig& config, const AdapterSettings* adapter) : config_(config), adapter_(adapter) {}

  std::int64_t Queries() const { return config_.num_attention_heads * config_.head_dim; }
  std::int64_t Keys() const { return config_.num_key_value_heads * config_.head_dim; }

  // The number of these layers with an adapter; 1 for trained weights, which save their input too.
  std::int64_t Trained(std::initializer_list<const char*> linears) const {
    if (adapter_ == nullptr) return 1;
    std::int64_t count = 0;
    for (const char* linear : linears) {
      count += std::count(adapter_->targets.begin(), adapter_->targets.end(), linear);
    }
    return count;
  }
  // `width` elements if one of the layers saves its input, and the adapters' inner values.
  std::int64_t Input(std::int64_t width, std::initializer_list<const char*> linears) const {
    const std::int64_t trained = Trained(linears);
    return (trained > 0 ? width : 0) + (adapter_ != nullptr ? trained * adapter_->rank : 0);
  }

  // `repeated`: keys and values are saved once per query head, as libtorch's attention does. `gpu`: layers
  // with one input are one product, whose gradient lies beside those of its parts, and their dropped inputs
  // are made at once.
  Layer Of(bool repeated, bool gpu) const {
    const std::int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    Layer layer;
    // Rotated queries and keys, values, output, and the softmax's statistic.
    layer.attention = Input(hidden, {"q_proj", "k_proj", "v_proj", "qkv_proj"}) + 2 * Queries() +
                      2 * (repeated ? Queries() : Keys()) + config_.num_attention_heads;
    // The two residual sums, the norm between them, gate, up and their product.
    layer.product = Input(inner, {"down_proj"});
    layer.feed_forward = Input(0, {"o_proj"}) + 2 * hidden +
                         Input(hidden, {"gate_proj", "up_proj", "gate_up_proj"}) + 2 * inner + layer.product;
    // Norms save their inputs.
    if (config_.qk_norm) layer.attention += Queries() + Keys();
    if (config_.output_norms) layer.feed_forward += 2 * hidden;
    layer.attention_gradients = hidden + 2 * Queries() + 2 * Keys();
    layer.feed_forward_gradients = 2 * hidden + 3 * inner;
    if (gpu) layer.attention_gradients += 2 * Keys();
    if (gpu && adapter_ != nullptr && adapter_->dropout > 0) {
      layer.attention_gradients += hidden * Trained({"q_proj", "k_proj", "v_proj", "qkv_proj"});
      layer.feed_forward_gradients += hidden * Trained({"gate_proj", "up_proj", "gate_up_proj"});
    }
    return layer;
  }

 private:
  const ModelConfig& config_;
  const AdapterSettings* adapter_;
};

// Additive masks, one for each window, and the booleans that they are made of, which the allocator keeps.
std::int64_t MaskBytes(const ModelConfig& config, std::int64_t element_bytes, const data::RowPass& pass) {
  constexpr std::int64_t kBooleans = 4;
  const LayerWindows layers = WindowsOf(pass, config.Attention());
  const bool tree = !pass.end.empty();
  const auto masks = std::count_if(layers.windows.begin(), layers.windows.end(),
                                   [tree](std::int64_t window) { return tree || window > 0; });
  return masks * pass.batch * pass.length * pass.length * (element_bytes + kBooleans);
}

}  // namespace

std::int64_t PassMemory::PeakBytes() const { return saved_bytes + std::max(head_bytes, layer_bytes); }

PassMemory MemoryOfPass(const ModelConfig& config, const AdapterSettings* adapter, std::int64_t element_bytes,
                        bool recompute, const data::RowPass& pass, at::Device device, bool tree_kernel) {
  const Rows rows = RowsOf(pass);
  const Shape shape(config, adapter);
  const bool own_attention =
      !pass.end.empty() &&
      (device.is_cpu() || (tree_kernel && HasTreeKernel(config.head_dim, element_bytes)));
  const Layer layer = shape.Of(!own_attention, !device.is_cpu());
  const std::int64_t layers = config.num_hidden_layers, hidden = config.hidden_size;

  PassMemory memory;
  const std::int64_t wide_bytes = std::max(element_bytes, kFp32Bytes);
  // Embeddings, rotary table; the last layer's feed-forward sees rows with an edge only.
  const std::int64_t tables = wide_bytes * rows.all * config.head_dim;
  const std::int64_t whole = rows.all * hidden;
  if (recompute) {
    memory.saved_bytes =
        tables + element_bytes * (whole + layers * rows.all * 2 * hidden + rows.sources * hidden);
    // A whole layer is recomputed. The largest is the last but one, when the last layer, of fewer
    // rows, has freed its inputs. The product of gate and up is freed before their gradients are
    // made.
    memory.layer_bytes = element_bytes * rows.all *
                         (layer.attention + layer.feed_forward - layer.product + layer.Gradients() -
                          (layers > 1 ? 2 * hidden : 0));
  } else {
    // Nothing in front of the first layer's attention is trained where no adapter is: no gradient goes there.
    const std::int64_t ungraded = shape.Trained({"q_proj", "k_proj", "v_proj", "qkv_proj"}) > 0 ? 0 : 1;
    memory.saved_bytes =
        tables +
        element_bytes * (whole + (layers - ungraded) * rows.all * layer.attention +
                         ((layers - 1) * rows.all + rows.sources) * layer.feed_forward +
                         rows.sources * (hidden + (shape.Trained({"o_proj"}) > 0 ? shape.Queries() : 0)));
    // The peak is in backward of the last layer's feed-forward, of its attention, or of the
    // feed-forward before it, which is the first of all rows, when the last layer's inputs are
    // freed. The product of gate and up is freed before their gradients are made.
    const std::int64_t feed_forward = layer.feed_forward_gradients - layer.product;
    const std::int64_t last = rows.sources * layer.feed_forward;
    memory.layer_bytes =
        element_bytes * std::max({rows.sources * feed_forward, rows.all * layer.attention_gradients - last,
                                  layers > 1 ? rows.all * (feed_forward - layer.attention) - last : 0});
  }

  if (!device.is_cpu() && !own_attention) memory.saved_bytes += MaskBytes(config, element_bytes, pass);

  const std::int64_t row_bytes = config.vocab_size * wide_bytes;
  const HeadChunks head = HeadChunksOn(device, row_bytes);
  const std::int64_t chunk = std::min(head.rows, rows.sources);
  std::int64_t kept =
      std::min(head.keep_bytes / (head.rows * row_bytes), rows.sources / head.rows) * head.rows;
  // The last chunk is smaller, and may fit where another does not.
  if (const std::int64_t last = rows.sources % head.rows; (kept + last) * row_bytes <= head.keep_bytes)
    kept += last;
  const std::int64_t rank = adapter != nullptr && shape.Trained({"lm_head"}) > 0 ? adapter->rank : 0;
  const std::int64_t rounded = element_bytes < wide_bytes ? chunk * config.vocab_size * element_bytes : 0;
  // Where libtorch's operators make the gradient, of gem or without kernels, they take two chunks more.
  const std::int64_t temporaries = device.is_cpu() ? 0 : 2 * chunk;
  memory.head_bytes = (kept + (kept < rows.sources ? chunk : 0) + temporaries) * row_bytes + rounded +
                      element_bytes * ((rows.sources + chunk) * hidden + 2 * rows.sources * rank +
                                       2 * rank * config.vocab_size +
                                       (adapter == nullptr ? 2 * config.vocab_size * hidden : 0)) +
                      kStatisticBytes * 8 * static_cast<std::int64_t>(pass.edges.size());
  return memory;
}

}  // namespace plural::trainer
