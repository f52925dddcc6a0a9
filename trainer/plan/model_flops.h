// Model FLOPs: the arithmetic that a pass needs, whatever computes it.
//
// Owns: the count, from shapes and the rows of a pass. Does not own: predicted times (cost_model.h).
// Thread rule: pure functions.
#pragma once

#include <cstdint>

#include "data/rows.h"
#include "trainer/model/config.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

// Floating-point operations (two per multiply-add) of forward and backward of a pass. With N rows
// that carry a token, S of them with an edge, P visible (row, row) pairs, W inputs x outputs of a
// layer's linear layers:
//   linear layers  2 N W forward, 2 N W gradient of the input, 2 N W gradient of the weight if it is trained
//   adapters       6 N K (inputs + outputs) at rank K
//   attention      4 P H D forward, 8 P H D backward
//   head           as a linear layer, on S rows
// Results that are not used are not counted: after the last layer's attention there are S rows, and
// frozen embeddings need no gradient. Nor is work that a program does twice, or for padding. For
// method cvf the latents' own parts are left out.
// `adapter`: null when all weights are trained.
double ModelFlops(const ModelConfig& config, const AdapterSettings* adapter, const data::RowPass& pass);

}  // namespace plural::trainer
