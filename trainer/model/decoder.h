// The decoder: grouped-query attention, rotary embedding, RMSNorm and a gated feed-forward, as config.h
// describes them.
//
// Owns: the model's tensors and the way from embeddings to the final norm. Does not own: visibility
// (attention.h), the head's loss (head.h), files (hf_folder.h). Thread rule: one thread.
//
// Shape letters: N rows of all batch items, B batch, T length, H query heads, G key-value heads,
// D head dimension, E hidden size, V vocabulary.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dist/flat_parameters.h"
#include "trainer/model/adapter_settings.h"
#include "trainer/model/config.h"
#include "trainer/model/head.h"
#include "trainer/model/latents.h"
#include "trainer/model/linear.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/row_numbers.h"

namespace plural::trainer {

class Decoder {
 public:
  // Where a part has two forms, the tensors of the unused form are undefined.
  struct Layer {
    at::Tensor attention_norm, feed_forward_norm;                // of inputs
    at::Tensor attention_output_norm, feed_forward_output_norm;  // of outputs, with output_norms
    at::Tensor q_norm, k_norm;                                   // [D], with qk_norm
    Linear q_proj, k_proj, v_proj, qkv_proj, o_proj;
    Linear gate_proj, up_proj, gate_up_proj, down_proj;
    JoinedLinear qkv, gate_up;  // of q_proj, k_proj, v_proj; of gate_proj, up_proj
  };

  // Allocates all weights uninitialised (hf_folder.h fills them, or InitializeRandom does). `dtype`
  // is that of activations and products. Weights are stored in it, or in `weight_dtype`: fp32 where
  // the weights of a bf16 model are trained. Adapters and latents are stored in the type in which
  // `dtype` is computed (dtypes.h). With kLater the linear weights of the layers are tensors of the
  // meta device until SetFull or SetNf4 sets each.
  enum class Linears { kNow, kLater };
  // Frozen weights of layers with one input lie in one matrix and are one product; their names and shapes
  // stay. Not on the CPU, whose results keep their bits, unless asked for.
  enum class Joins { kOffTheCpu, kAlways };
  Decoder(const ModelConfig& config, at::ScalarType dtype, at::Device device,
          std::optional<at::ScalarType> weight_dtype = {}, Linears linears = Linears::kNow,
          Joins joins = Joins::kOffTheCpu);

  // Normal(0, initializer_range), norms 1, biases 0; a pure function of (seed, parameter name).
  void InitializeRandom(std::uint64_t seed);
  // Stores a linear weight of a layer in full (uninitialised unless it was so before) or in NF4. In
  // NF4 it is listed by its shape, as a tensor of the meta device, and cannot be trained.
  at::Tensor SetFull(const std::string& parameter);
  void SetNf4(const std::string& parameter, const Nf4Weight& weight);
  // Null for a parameter that is stored in full.
  const Nf4Weight* Nf4(const std::string& parameter) const;
  // Adds LoRA factors: A Kaiming-uniform(a = sqrt 5), B zero, keyed by (seed, parameter name); the base is
  // frozen. Errors: ExitError(kBadRecipe) for a target that this model does not have.
  void AddAdapter(const AdapterSettings& settings, std::uint64_t seed);
  // A decoder that shares the base weights and has neither adapter nor latents.
  Decoder WithoutAdapter() const;
  const AdapterSettings* Adapter() const { return adapter_ ? &*adapter_ : nullptr; }
  // Adds CVF's latents, which are trained, with their initial values (latents.h). The base weights
  // must have theirs already.
  void AddLatents(std::int64_t latents, std::uint64_t seed);
  const Latents* LatentHeads() const { return latents_ ? &*latents_ : nullptr; }

  // Token ids [N] (int64) -> embeddings [N, E], scaled where the model scales them.
  at::Tensor Embed(const at::Tensor& token_N) const;
  // Embeddings and positions [N] (int64) -> hidden states after the final norm, [N, E]; with `rows`
  // (ascending) only theirs, [S, E]: the last layer is not computed where it is not used.
  at::Tensor Hidden(const at::Tensor& embedding_NE, const at::Tensor& position_N, Attention& attention,
                    const RowNumbers& rows = {}, const Dropout& dropout = {}) const;
  // The same values and gradients with little memory: each layer keeps its inputs only and runs
  // forward again in backward, when `attention` is called in any order.
  at::Tensor HiddenRecomputed(const at::Tensor& embedding_NE, const at::Tensor& position_N,
                              std::shared_ptr<Attention> attention, const RowNumbers& rows = {},
                              const Dropout& dropout = {}) const;
  const VocabularyHead& Head() const { return head_; }
  at::Tensor Logits(const at::Tensor& hidden_NE) const { return head_.Logits(hidden_NE); }

  // Base weights under their Hugging Face names, in file order; a tied head is not listed.
  std::vector<dist::NamedTensor> BaseParameters() const;
  // LoRA factors as "model.layers.0.self_attn.q_proj.lora_A.weight" and so on.
  std::vector<dist::NamedTensor> AdapterParameters() const;
  // The trained parameters: the latents, if any, then the adapter if there is one, else the base.
  std::vector<dist::NamedTensor> TrainableParameters() const;
  // Lets gradients reach the base weights. Full-weight training only: an adapter's base stays frozen.
  void TrainBase();

  const ModelConfig& Config() const { return config_; }
  // Adds end tokens to those of the config; they are saved with the model.
  void AddEndTokens(std::span<const std::int64_t> ids) { config_.AddEndTokens(ids); }
  // Replaces all end tokens.
  void SetEndTokens(std::vector<std::int64_t> ids) { config_.eos_token_ids = std::move(ids); }
  at::ScalarType DType() const { return dtype_; }
  at::Device Device() const { return device_; }

 private:
  // Those of x, with queries and keys rotated.
  std::vector<at::Tensor> QueriesKeysValues(const Layer& layer, const at::Tensor& x_NE,
                                            const RotaryTable& table, const Dropout& dropout) const;
  at::Tensor FeedForward(const Layer& layer, const at::Tensor& x_NE, const Dropout& dropout,
                         const Dropout& output_dropout) const;
  // The values that all layers of a pass share.
  struct LayersContext {
    Attention& attention;
    RotaryTable rotary, sliding_rotary;
    RowNumbers rows;
    Dropout dropout;
  };
  LayersContext ContextOf(const at::Tensor& position_N, Attention& attention, const RowNumbers& rows,
                          const Dropout& dropout) const;
  // Maps the residual sum and its norm before layer l to those after it.
  SumAndNorm RunLayer(std::size_t l, const LayersContext& context, at::Tensor residual_NE,
                      const at::Tensor& x_NE) const;
  SumAndNorm BeforeLayers(const at::Tensor& embedding_NE) const;
  double EmbeddingScale() const;
  // Uninitialised memory for a linear layer's weight or bias: its rows of the matrix of all that share its
  // input, where there is one.
  at::Tensor NewMemory(Layer& layer, const LinearShape& shape, bool bias,
                       const at::TensorOptions& options) const;
  // Null for a parameter that is no linear weight of a layer; LinearOf throws std::logic_error then.
  const Linear* FindLinear(const std::string& parameter) const;
  Linear& LinearOf(const std::string& parameter);

  ModelConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  bool joins_;
  std::optional<AdapterSettings> adapter_;
  std::optional<Latents> latents_;
  std::shared_ptr<Nf4Scratch> nf4_scratch_ = std::make_shared<Nf4Scratch>();
  at::Tensor embed_tokens_, norm_;
  std::vector<Layer> layers_;
  VocabularyHead head_;
};

}  // namespace plural::trainer
