// Latents: the parameters of CVF besides the decoder's (docs/methods.md 4.5).
//
// Owns: the latent table, the recognition query and head, the bag-of-words transform, their names
// and initial values. Does not own: passes and losses (method/latent_unit.h), files (hf_folder.h).
// Thread rule: one thread.
//
// Shape letters: K latents, E hidden size, R rows.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <string>
#include <vector>

#include "dist/flat_parameters.h"

namespace plural::trainer {

struct Latents {
  at::Tensor table_KE;               // embeddings of the latents, fed right before the response
  at::Tensor query_E;                // embedding fed after a response that is to be recognised
  at::Tensor recognition_weight_KE;  // W of the logits W h + b, h the state at the query
  at::Tensor recognition_bias_K;     // b
  at::Tensor bow_dense_EE;           // bag-of-words transform, see Bow
  at::Tensor bow_norm_E;

  std::int64_t Count() const { return table_KE.size(0); }

  // Allocated uninitialised, in the decoder's dtype and on its device.
  static Latents Allocate(std::int64_t latents, std::int64_t hidden_size, const at::TensorOptions& options);
  // Sets the initial values, a pure function of (seed, parameter name) and the model. Rows of the
  // table and the query are the mean of the token embeddings plus Normal(0, standard deviation of
  // the embedding table), both times `embedding_scale`, since an update can move a coordinate by
  // little more than the learning rate. The recognition head and the dense transform are Normal(0,
  // initializer_range), the bias is 0. The transform's norm is that of the model's final norm, to
  // whose scale the head is trained.
  void Initialize(std::uint64_t seed, const at::Tensor& embedding_VE, double embedding_scale,
                  const at::Tensor& final_norm_E, double initializer_range);

  // "latents.table", "latents.query", ...; every name starts with kLatentPrefix.
  std::vector<dist::NamedTensor> Parameters() const;

  // Final hidden states at queries [R, E] -> logits of the latents [R, K].
  at::Tensor Recognize(const at::Tensor& hidden_RE) const;
  // Final hidden states at latents [R, E] -> the states from which the head predicts all response
  // tokens, [R, E]: RmsNorm(gelu(h W^T)).
  at::Tensor Bow(const at::Tensor& hidden_RE, double rms_norm_eps) const;
};

inline constexpr const char* kLatentPrefix = "latents.";

// The number of parameters that `latents` latents add to a model.
std::int64_t LatentParameterCount(std::int64_t latents, std::int64_t hidden_size);

}  // namespace plural::trainer
