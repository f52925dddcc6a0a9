#include "trainer/plan/memory_model.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <set>

#include "data/random.h"
#include "tests/unit/support/every_part.h"
#include "trainer/method/objective.h"

namespace plural::trainer {
namespace {

// Hears of every tensor that this thread allocates and frees.
class Meter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t, c10::Device) override {
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t Peak() const { return peak_; }

 private:
  std::int64_t now_ = 0, peak_ = 0;
};

struct Case {
  const char* name;
  data::Layout layout;
  int prompt_tokens, responses;
  std::vector<std::string> targets;  // none: all weights are trained
  at::ScalarType dtype = at::kFloat;
  bool every_part = false, fused = false, recompute = false;
};

ModelConfig Shape(const Case& wanted) {
  ModelConfig config;
  config.vocab_size = 3000;
  config.hidden_size = 96;
  config.intermediate_size = 256;
  config.num_hidden_layers = 5;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.fused_projections = wanted.fused;
  config.sliding_window = wanted.every_part ? 100 : 0;
  if (wanted.every_part) testing::AddEveryPart(config);
  return config;
}

std::vector<data::Token> Tokens(data::CounterRandom& random, int count) {
  std::vector<data::Token> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<data::Token>(random.Below(3000)));
  return tokens;
}

// `responses` of 20 tokens behind one prompt.
data::RowPass MakePass(data::Layout layout, int prompt_tokens, int responses) {
  data::CounterRandom random{1};
  data::LabelledGroup group;
  const auto prompt = Tokens(random, prompt_tokens);
  for (int r = 0; r < responses; ++r) {
    data::LabelledSequence sequence;
    sequence.prefix = prompt;
    sequence.response = Tokens(random, 20);
    sequence.likelihood.assign(20, 0.01);
    sequence.unlikelihood.assign(20, 0.0);
    group.sequences.push_back(std::move(sequence));
  }
  return data::PackGroups({&group, 1}, {.layout = layout, .row_budget = 1 << 20}, 1.0).at(0);
}

std::int64_t MeasuredPeak(const Case& wanted, const data::RowPass& pass) {
  Decoder model(Shape(wanted), wanted.dtype, at::kCPU);
  model.InitializeRandom(1);
  if (wanted.targets.empty()) {
    model.TrainBase();
  } else {
    model.AddAdapter({.rank = 8, .targets = wanted.targets}, 1);
  }
  for (const auto& [name, tensor] : model.TrainableParameters()) {
    tensor.mutable_grad() = at::zeros_like(tensor);  // as in the flat buffer: nothing is left to allocate
  }
  const auto meter = std::make_shared<Meter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  RunPass(model, pass, {.recompute = wanted.recompute}).loss.backward();
  return meter->Peak();
}

const std::vector<std::string> kAll = {"q_proj",    "k_proj",  "v_proj",    "o_proj",
                                       "gate_proj", "up_proj", "down_proj", "lm_head"};

const std::vector<std::string> kFused = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"};

// The formulas leave out what is small: pointers, indices, gradients of norms and factors. 5 % is the room
// for these; a tensor of a row that is forgotten in every layer is more.
TEST(MemoryModel, IsThePeakOfTensorsInAPass) {
  for (const Case& wanted :
       {Case{"peft", data::Layout::kTree, 200, 20, {"q_proj", "k_proj", "v_proj", "lm_head"}},
        Case{"all linears", data::Layout::kTree, 100, 40, kAll},
        Case{"double", data::Layout::kTree, 100, 40, kAll, at::kDouble},
        Case{"long prompt", data::Layout::kTree, 1500, 2, {"o_proj", "down_proj"}},
        Case{"all weights", data::Layout::kTree, 300, 30, {}},
        Case{"plain", data::Layout::kPlain, 60, 20, kAll},
        Case{"every part", data::Layout::kTree, 300, 30, kAll, at::kFloat, true},
        Case{"every part, fused", data::Layout::kTree, 300, 30, kFused, at::kFloat, true, true},
        Case{"fused, all weights", data::Layout::kTree, 300, 30, {}, at::kFloat, false, true},
        Case{"recomputed", data::Layout::kTree, 900, 20, kAll, at::kFloat, false, false, true},
        Case{"recomputed, all weights", data::Layout::kTree, 900, 20, {}, at::kFloat, true, false, true}}) {
    const data::RowPass pass = MakePass(wanted.layout, wanted.prompt_tokens, wanted.responses);
    const AdapterSettings adapter{.rank = 8, .targets = wanted.targets};
    const PassMemory memory =
        MemoryOfPass(Shape(wanted), wanted.targets.empty() ? nullptr : &adapter,
                     static_cast<std::int64_t>(at::elementSize(wanted.dtype)), wanted.recompute, pass);
    const auto measured = static_cast<double>(MeasuredPeak(wanted, pass));
    EXPECT_NEAR(static_cast<double>(memory.PeakBytes()) / measured, 1.0, 0.05)
        << wanted.name << ": predicted " << memory.PeakBytes() << " (saved " << memory.saved_bytes
        << ", head " << memory.head_bytes << ", layer " << memory.layer_bytes << "), measured " << measured;
  }
}

// By hand: on a GPU without the kernel for trees each layer saves keys and values of 2 key heads for all 6
// query heads, and each distinct window has a mask. With it a tree takes what it takes on the CPU.
TEST(MemoryModel, OnAGpuWithoutAKernelATreeHasRepeatedKeysAndDenseMasks) {
  const Case wanted{"gpu", data::Layout::kTree, 100, 10, kAll};
  ModelConfig config = Shape(wanted);
  const AdapterSettings adapter{.rank = 8, .targets = kAll};
  const auto saved = [&](data::Layout layout, at::Device device, bool tree_kernel = false) {
    return MemoryOfPass(config, &adapter, 2, false, MakePass(layout, 100, 10), device, tree_kernel)
        .saved_bytes;
  };
  EXPECT_EQ(saved(data::Layout::kTree, at::kCUDA, true), saved(data::Layout::kTree, at::kCPU));
  const std::int64_t rows = MakePass(data::Layout::kTree, 100, 10).length;
  const std::int64_t repeated =
      2 * config.head_dim * (config.num_attention_heads - config.num_key_value_heads);
  ASSERT_GT(repeated, 0);
  const std::int64_t more = 2 * config.num_hidden_layers * rows * repeated;
  EXPECT_EQ(saved(data::Layout::kTree, at::kCUDA) - saved(data::Layout::kTree, at::kCPU),
            more + 6 * rows * rows);
  EXPECT_EQ(saved(data::Layout::kPlain, at::kCUDA), saved(data::Layout::kPlain, at::kCPU));

  config.sliding_window = 50;  // shorter than a sequence
  config.sliding_layers.assign(static_cast<std::size_t>(config.num_hidden_layers), false);
  config.sliding_layers[0] = true;
  EXPECT_EQ(saved(data::Layout::kTree, at::kCUDA) - saved(data::Layout::kTree, at::kCPU),
            more + 2 * 6 * rows * rows);
  EXPECT_GT(saved(data::Layout::kPlain, at::kCUDA), saved(data::Layout::kPlain, at::kCPU));
  EXPECT_EQ(saved(data::Layout::kTree, at::kCUDA, true), saved(data::Layout::kTree, at::kCPU));
  EXPECT_GT(
      MemoryOfPass(config, &adapter, 8, false, MakePass(data::Layout::kTree, 100, 10), at::kCUDA).saved_bytes,
      MemoryOfPass(config, &adapter, 8, false, MakePass(data::Layout::kTree, 100, 10), at::kCPU)
          .saved_bytes);  // fp64
}

// By hand, in bf16 with a vocabulary of 152,064: on a GPU a chunk is 768 rows of fp32 logits and 4 of these
// fit into 2 GiB; behind them the chunk at hand, its bf16 gradient, and its part of the hidden states'
// gradient.
TEST(MemoryModel, OnAGpuTheHeadTakesLargerChunks) {
  ModelConfig config = Shape({"gpu", data::Layout::kTree, 10, 200, {"q_proj"}});
  config.vocab_size = 152064;
  const AdapterSettings adapter{.rank = 8, .targets = {"q_proj"}};
  const data::RowPass pass = MakePass(data::Layout::kTree, 10, 200);
  const auto edges = static_cast<std::int64_t>(pass.edges.size());
  const auto head_bytes = [&](at::Device device) {
    return MemoryOfPass(config, &adapter, 2, false, pass, device, true).head_bytes;
  };
  std::set<std::int32_t> with_edge;
  for (const data::Edge& edge : pass.edges) with_edge.insert(edge.source);
  const auto sources = static_cast<std::int64_t>(with_edge.size());
  ASSERT_GT(sources, 4 * 768 + 512);  // the last chunk is too large to be kept
  const auto of_chunks = [&](std::int64_t rows, std::int64_t kept) {
    return (kept + rows) * 152064 * 4 + rows * 152064 * 2 + 2 * (sources + rows) * config.hidden_size +
           64 * edges;
  };
  // And two chunks that libtorch's operators make, where they do.
  EXPECT_EQ(head_bytes(at::kCUDA), of_chunks(768, 4 * 768) + 2 * 768 * config.vocab_size * 4);
  EXPECT_EQ(head_bytes(at::kCPU), of_chunks(256, 256));
  config.vocab_size = 3000;  // all are kept, one chunk
  EXPECT_EQ(head_bytes(at::kCUDA),
            sources * 3000 * (4 + 2 * 4 + 2) + 2 * 2 * sources * config.hidden_size + 64 * edges);
}

// What is made at once on a GPU lies there at once: in a backward of attention's projections with long rows,
// the joined gradient of keys and values, and the dropped inputs of q, k and v.
TEST(MemoryModel, OnAGpuJoinedGradientsAndDroppedInputsCount) {
  const Case wanted{"gpu", data::Layout::kTree, 1500, 2, {"q_proj", "k_proj", "v_proj"}};
  ModelConfig config = Shape(wanted);
  config.vocab_size = 30;
  config.intermediate_size = 16;  // so that the peak is in attention
  const data::RowPass pass = MakePass(data::Layout::kTree, 1500, 2);
  const auto layer_bytes = [&](double dropout, at::Device device) {
    const AdapterSettings adapter{.rank = 8, .dropout = dropout, .targets = wanted.targets};
    return MemoryOfPass(config, &adapter, 2, false, pass, device).layer_bytes;
  };
  EXPECT_EQ(layer_bytes(0.1, at::kCPU), layer_bytes(0.0, at::kCPU));
  EXPECT_EQ(layer_bytes(0.0, at::kCUDA) - layer_bytes(0.0, at::kCPU),
            2 * pass.length * 2 * config.num_key_value_heads * config.head_dim);
  EXPECT_EQ(layer_bytes(0.1, at::kCUDA) - layer_bytes(0.0, at::kCUDA),
            2 * pass.length * 3 * config.hidden_size);
}

}  // namespace
}  // namespace plural::trainer
