// Pass forward: one row pass through the decoder, up to the hidden states that predict something.
//
// Owns: a pass's rows and edges as tensors, rows whose embeddings are given instead of looked up,
// sums over a sequence's edges. Does not own: the head (model/head.h), losses (objective.h,
// latent_unit.h). Thread rule: one thread.
//
// Shape letters: S distinct source rows, E edges or hidden size, I injected rows, Q sequences.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "data/rows.h"
#include "trainer/model/decoder.h"
#include "trainer/model/head.h"

namespace plural::trainer {

// The pass's edges, in their order, as the head and the loss read them.
struct PassEdges {
  RowNumbers source;                        // the distinct source rows, ascending
  EdgeList list;                            // edges of these, as the head's rows
  at::Tensor likelihood_E, unlikelihood_E;  // fp64
};
// `weighted_only` leaves edges without weight out.
PassEdges EdgesOf(const data::RowPass& pass, bool weighted_only, at::Device device);

// Rows that carry no token, and the embeddings in their place.
struct InjectedRows {
  at::Tensor row_I;         // [I] int64, flat rows of the pass; undefined: none
  at::Tensor embedding_IE;  // may require a gradient
};

struct SourceStates {
  at::Tensor hidden_SE;  // after the final norm, of the source rows
  Dropout head_dropout;  // of these rows, for the head's adapter
};
// `source`: rows of the pass, ascending. `dropout_key`: made of (seed, step); none: nothing is
// dropped. `recompute`: as in Decoder::HiddenRecomputed.
SourceStates HiddenOfSources(const Decoder& model, const data::RowPass& pass, const RowNumbers& source,
                             std::optional<std::uint64_t> dropout_key, const InjectedRows& injected = {},
                             bool recompute = false);

// Sum over the edges of each sequence: path_offset [Q + 1] and path as in RowPass, value_E one
// value per edge. Differentiable.
at::Tensor SequenceSums(const std::vector<std::int32_t>& path, const std::vector<std::int32_t>& path_offset,
                        const at::Tensor& value_E);

}  // namespace plural::trainer
