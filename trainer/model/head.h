// The head in row form: hidden states to log p and log(1-p) of edges, and their gradient.
//
// Owns: the projection onto the vocabulary on source rows only, in chunks; the row statistics; the
// gradient made of a row's two scalars and an edge's one value. Does not own: objectives, which
// turn edge values into coefficients (objective.h). Thread rule: one thread.
//
// Whatever the objective, the gradient with respect to a row's logits z is
//     a * softmax(z / b) + c * p + scatter(t_e at y_e)        (docs/methods.md 6.3)
// so backward takes two scalars per row and one value per edge. `log p` and `log(1-p)` need c and
// t, log softmax(z / b) needs a, b and t.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "trainer/model/linear.h"

namespace plural::trainer {

struct VocabularyHead {
  Linear linear;
  double softcap = 0.0;  // > 0: logits are SoftCap (pointwise.h) of the projection

  // Logits [N, V] of hidden states, for generation and scoring of few rows.
  at::Tensor Logits(const at::Tensor& hidden_NE) const;
};

// The predictions of rows, on a device. The first edge of each row is also on the host, which cuts
// rows into chunks and must not wait for the device.
struct EdgeList {
  // `row_E`: below `rows`, ascending; each (row, target) once. Errors: std::logic_error for rows
  // that are not.
  EdgeList(std::int64_t rows, const std::vector<std::int64_t>& row_E,
           const std::vector<std::int64_t>& target_E, at::Device device);

  at::Tensor edge_row;                   // [E] int64
  at::Tensor edge_target;                // [E] int64: vocabulary id
  std::vector<std::int64_t> first_edge;  // [S + 1]
};

// How rows are cut into chunks. A chunk's logits are kept for backward while all kept ones fit into
// `keep_bytes`; the others are recomputed.
struct HeadChunks {
  std::int64_t rows = 0, keep_bytes = 0;
};
// Those of a kind of device for logits of `row_bytes` per row; plan/memory_model counts the same.
HeadChunks HeadChunksOn(at::Device device, std::int64_t row_bytes);

struct HeadSettings {
  std::optional<std::int64_t> chunk_rows = {}, keep_bytes = {};  // none: HeadChunksOn
  Dropout dropout = {};                                          // of the head's adapter, for the source rows
  // b > 0: log softmax(z / b) of the edges and its entropy are computed, too.
  double temperature = 0.0;
};

struct EdgeLogProbs {
  at::Tensor log_p;            // [E] log p of the target, fp64
  at::Tensor log_one_minus_p;  // [E] log(1 - p), finite where that underflows (docs/methods.md 6.2)
  // At HeadSettings::temperature, undefined without one:
  at::Tensor tempered_log_p_E;         // [E] log softmax(z / b) of the target, fp64
  at::Tensor tempered_entropy_nats_E;  // [E] entropy of softmax(z / b) in the edge's row; not differentiable
};

// hidden_SE: final hidden states of the rows that predict. Differentiable in hidden, head weight (if it
// requires a gradient) and its LoRA factors; first order only.
EdgeLogProbs EdgeLogProb(const at::Tensor& hidden_SE, const VocabularyHead& head, const EdgeList& edges,
                         const HeadSettings& settings = {});

}  // namespace plural::trainer
