#include "trainer/plan/predict_cost.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace plural::trainer {
namespace {

// Cost of `sequences` sequences that share `prompt_rows` rows and have `body` rows more. A group
// too large for one tree, or cheaper in several, repeats its prompt in each. A row of the body sees
// the prompt and on average half of its own sequence.
double CostOfTrees(std::int64_t prompt_rows, double body, double sequences, const data::CostModel& cost) {
  const auto prompt = static_cast<double>(prompt_rows);
  double trees = 1.0;
  if (const double prompt_cost = cost.Cost(prompt_rows); prompt_cost > 0.0) {
    // d/dn [n * Cost(prompt + body / n)] = 0, with Cost(x) = per_row * x + per_row_pair * x^2.
    trees = std::round(body * std::sqrt(cost.per_row_pair / prompt_cost));
  }
  if (cost.max_rows > prompt_rows) {
    trees = std::max(trees, std::ceil(body / static_cast<double>(cost.max_rows - prompt_rows)));
  }
  trees = std::clamp(trees, 1.0, std::max(1.0, sequences));  // a tree holds at least one sequence
  const double own = body / std::max(1.0, sequences) / 2.0;
  const double visible = trees * prompt * prompt / 2.0 + body * (prompt + own);
  return trees * cost.Cost(static_cast<std::int64_t>(std::ceil(prompt + body / trees))) +
         cost.per_visible_pair * visible;
}

}  // namespace

double PredictCost(const data::Corpus::GroupLengths& lengths, const Method& method,
                   const data::LabelSettings& label, const data::CostModel& cost) {
  const auto found = static_cast<std::int64_t>(lengths.responses.size());
  const std::int64_t used = std::min(found, CountUsed(method, found, label));
  const std::int64_t candidates = label.selection == data::Selection::kAligned ? found : used;
  const auto candidate_tokens = static_cast<double>(
      std::accumulate(lengths.responses.begin(), lengths.responses.begin() + candidates, std::int64_t{0}));
  const double share = candidates > 0 ? static_cast<double>(used) / static_cast<double>(candidates) : 0.0;
  UsedLengths body{.tail = static_cast<double>(lengths.longest_tail),
                   .responses = static_cast<double>(used),
                   .response_tokens = candidate_tokens * share};
  // The last token of a response is predicted but never fed: one row less.
  body.fed = std::max(0.0, body.response_tokens - body.responses);
  if (method.extents == nullptr) {
    return CostOfTrees(lengths.prompt, body.tail + body.fed, body.responses, cost);
  }
  double total = 0.0;
  for (const TreeExtent& tree : method.extents(body, label)) {
    total += CostOfTrees(lengths.prompt, tree.rows, tree.sequences, cost);
  }
  return total;
}

}  // namespace plural::trainer
