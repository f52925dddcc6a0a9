// Predicted cost of a group, from its lengths alone.
//
// Owns: the formula that balances groups over ranks. Does not own: which trees a method makes
// (Method::extents), the cost of rows (data/tree.h, CostModel). Thread rule: pure.
#pragma once

#include "data/corpus.h"
#include "data/tree.h"
#include "trainer/method/method.h"

namespace plural::trainer {

// Predicted cost of a group under the settings, from its lengths alone: the same on every rank, and
// without reading a token. Rows, with P, T, L for the tokens of prompt, longest tail and all used
// responses, n for their number, and D = L - n for the response tokens that are fed (the last one
// of each is not):
//
//   most methods                                    P + T + D
//   poexft, K negatives                             P + n T + (1 + K / n) D
//   cvf, below K latents or n mixed ones            (P + T + L + n) to recognise, and P + T + K (1 + D)
//                                                   or P + T + n + D
//
// The responses that an aligned selection takes are not known here: L is then their share of all
// candidates' tokens. Tokens that responses share are not known either, and not subtracted. If
// several trees are cheaper, or max_rows requires them, P is counted once per tree.
double PredictCost(const data::Corpus::GroupLengths& lengths, const Method& method,
                   const data::LabelSettings& label, const data::CostModel& cost);

}  // namespace plural::trainer
