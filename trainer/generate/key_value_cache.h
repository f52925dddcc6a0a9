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

#include "trainer/model/decoder.h"
#include "trainer/ops/attention.h"

namespace plural::trainer {

// A prompt and some of its tails, run through the model once as one token tree.
struct Prefill {
  std::vector<at::Tensor> k_NGD, v_NGD;         // per layer, rotated
  std::vector<std::vector<std::int32_t>> path;  // per tail: its tree rows from the root to its last token
  at::Tensor logits_LV;                         // per tail: what its last token predicts
};

// `tails` complete `prompt_tokens`; equal tails share everything. Errors: DataError for an empty prompt.
Prefill RunPrefill(const Decoder& model, const data::Group& group, const std::vector<int>& tails);

// A token of a path occupies one slot of a pool; paths that begin alike share the slots of what they have in
// common, so keeping, repeating or dropping a row moves no keys.
class KeyValueCache {
 public:
  // Room for `responses` paths of at most `tokens` tokens, taken from the machine as it is used; more is
  // allocated where paths need it.
  KeyValueCache(const Decoder& model, std::int64_t responses, std::int64_t tokens);

  // Response `row` starts from the path of the prefill's tail `tail`. Rows that start from one prefill one
  // after the other share its tokens. A row behind the last one is added.
  void Start(std::int64_t row, const Prefill& prefill, std::size_t tail);
  // Feeds one token to each of the first token_R.size(0) responses; returns logits [R, V]. Rows behind them
  // wait unchanged.
  at::Tensor Step(const Decoder& model, const at::Tensor& token_R);
  // The same for positions that hold no token but a vector of their own.
  at::Tensor StepEmbeddings(const Decoder& model, const at::Tensor& embedding_RE);
  // Goes on with these rows, in this order. A row may be named several times: its path then goes on in
  // several ways.
  void Keep(const std::vector<std::int64_t>& rows);

 private:
  class PoolAttention;
  using Slot = std::int32_t;
  using Path = std::vector<Slot>;

  Slot Take();  // a free slot, for one user
  void Use(const Path& path, std::int32_t change);
  void Grow();

  std::vector<at::Tensor> k_SGD_, v_SGD_;  // per layer: the pool of S slots
  std::vector<std::int32_t> users_S_;      // how many paths hold a slot
  std::vector<Slot> free_;
  std::vector<Path> path_;  // of each row
  const ModelConfig config_;
  // The prefill that rows started from last, so that the next ones share its slots.
  struct Import {
    at::Tensor keys;   // kept alive, and so the only one with its address
    Path slot_of_row;  // -1: not copied yet
  };
  Import import_;
};

}  // namespace plural::trainer
