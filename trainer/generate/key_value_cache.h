// The key-value cache: what decoding remembers of each response's path.
//
// Owns: the keys and values of a prompt's tree after its one prefill; the growing cache of a batch of
// responses and the attention over it. Does not own: sampling, stopping. Thread rule: one thread.
//
// Shape letters: R responses decoded together, T tokens cached, H query heads, G key-value heads, D head
// dimension, N tree rows, E hidden size, V vocabulary.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/model/attention.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

// A prompt and some of its tails, run through the model once as one token tree.
struct Prefill {
  std::vector<at::Tensor> k_NGD, v_NGD;         // per layer, rotated
  std::vector<std::vector<std::int64_t>> path;  // per tail: its tree rows from the root to its last token
  at::Tensor logits_LV;                         // per tail: what its last token predicts
};

// `tails` complete `prompt_tokens`; equal tails share everything. Errors: DataError for an empty prompt.
Prefill RunPrefill(const Decoder& model, const data::Group& group, const std::vector<int>& tails);

class KeyValueCache {
 public:
  // Room for `responses` paths of at most `tokens` tokens.
  KeyValueCache(const Decoder& model, std::int64_t responses, std::int64_t tokens);

  // Response `row` starts from the path of the prefill's tail `tail`.
  void Start(std::int64_t row, const Prefill& prefill, std::size_t tail);
  // Feeds one token to each of the first token_R.size(0) responses; returns logits [R, V].
  at::Tensor Step(const Decoder& model, const at::Tensor& token_R);
  // The same for positions that hold no token but a vector of their own.
  at::Tensor StepEmbeddings(const Decoder& model, const at::Tensor& embedding_RE);
  // Goes on with these rows, in this order. A row may be named several times: its path then goes on in
  // several ways.
  void Keep(const std::vector<std::int64_t>& rows);

 private:
  class CacheAttention;
  std::vector<at::Tensor> k_RGTD_, v_RGTD_;  // per layer
  std::vector<std::int64_t> length_;         // tokens cached of each response
  std::int64_t sliding_window_ = 0;
};

}  // namespace plural::trainer
