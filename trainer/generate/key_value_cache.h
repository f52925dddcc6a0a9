// The key-value cache: what decoding remembers of each response's path.
//
// Owns: the keys and values of a prompt's tree after its one prefill; the growing cache of a batch of
// responses. Does not own: the attention over it (pool_attention.h), sampling, stopping. Thread rule: one
// thread.
//
// Shape letters: R responses decoded together, T tokens cached, H query heads, G key-value heads, D head
// dimension, N tree rows, E hidden size, V vocabulary.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/generate/pool_attention.h"
#include "trainer/model/decoder.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/ops/packed_upload.h"

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
  // allocated where paths need it. `kernels`: those that serve attention, null: none.
  KeyValueCache(const Decoder& model, std::int64_t responses, std::int64_t tokens,
                const CudaKernels* kernels = nullptr);

  // Response `row` starts from the path of the prefill's tail `tail`. Rows that start from one prefill one
  // after the other share its tokens. A row behind the last one is added.
  void Start(std::int64_t row, const Prefill& prefill, std::size_t tail);
  // Feeds one token to each of the first tokens.size() responses; returns logits [R, V]. Rows behind them
  // wait unchanged.
  at::Tensor Step(const Decoder& model, const std::vector<std::int64_t>& tokens);
  // The same in two halves, so that all that a step sends to the device goes in one copy, and for positions
  // that hold no token but a vector of their own. The first makes room for a token of each of the first
  // `rows` responses and adds to `upload`; the second takes its result once that is sent.
  std::unique_ptr<PoolAttention> MakeRoom(std::int64_t rows, PackedUpload& upload);
  at::Tensor StepEmbeddings(const Decoder& model, const at::Tensor& embedding_RE, PoolAttention& attention);
  // Goes on with these rows, in this order. A row may be named several times: its path then goes on in
  // several ways.
  void Keep(const std::vector<std::int64_t>& rows);

 private:
  using Slot = CacheSlot;
  using Path = CachePath;

  Slot Take();  // a free slot, for one user
  void Use(const Path& path, std::int32_t change);
  void Grow();

  CachePool pool_;
  std::vector<std::int32_t> users_S_;  // how many paths hold a slot
  std::vector<Slot> free_;
  std::vector<Path> path_;  // of each row
  const ModelConfig config_;
  const CudaKernels* const kernels_;
  // The prefill that rows started from last, so that the next ones share its slots.
  struct Import {
    at::Tensor keys;   // kept alive, and so the only one with its address
    Path slot_of_row;  // -1: not copied yet
  };
  Import import_;
};

}  // namespace plural::trainer
