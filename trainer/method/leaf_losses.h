// Leaf losses: losses of the log-probabilities of a group's whole responses, in two phases.
//
// Owns: the phases. Does not own: the function itself (Method::leaf_loss). Thread rule: one thread.
//
// With s_j the sum of log p over the edges of sequence j, L = f(s_1, ..., s_Q) has the gradient
// dL/dlog p_e = sum of dL/ds_j over the sequences j through edge e (docs/methods.md 6.5). A group
// whose sequences are in one pass needs one forward. One that is cut over several passes needs s of
// all of them before any gradient: phase 1 computes them without gradients, phase 2 runs each pass
// again with dL/ds_j as weights, so no more than one pass is kept for backward. The gradients are
// those of one large pass.
#pragma once

#include <memory>

#include "trainer/method/pass_losses.h"

namespace plural::trainer {

std::unique_ptr<PassLosses> MakeLeafLosses(const LossContext& context);

}  // namespace plural::trainer
