#include "trainer/plan/peak_pass.h"

#include <algorithm>
#include <vector>

#include "data/batch_plan.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/plan/predict_cost.h"
#include "trainer/plan/step_plan.h"

namespace plural::trainer {
namespace {

// The costliest group's step nearly always holds the largest pass; more of them cost a second at most.
constexpr std::int64_t kCostliest = 12;
constexpr std::int64_t kSpread = 4;

// The groups that may share a pass with `group`: those of its rank.
std::vector<std::int64_t> ShareWith(std::int64_t group, const std::vector<std::int64_t>& step_groups,
                                    const std::vector<double>& costs, int ranks) {
  std::vector<double> step_costs;
  for (const std::int64_t other : step_groups) step_costs.push_back(costs[static_cast<std::size_t>(other)]);
  for (const auto& share : data::AssignToRanks(step_costs, ranks)) {
    std::vector<std::int64_t> groups;
    for (const int index : share) groups.push_back(step_groups[static_cast<std::size_t>(index)]);
    if (std::find(groups.begin(), groups.end(), group) != groups.end()) return groups;
  }
  return {};
}

}  // namespace

PeakPass FindPeakPass(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config,
                      const data::PackSettings& pack, int ranks, bool recompute, at::Device device) {
  const std::int64_t groups = corpus.Info().groups;
  const data::LabelSettings label = recipe.SettingsOfMethod().label;
  std::vector<double> costs;
  for (std::int64_t group = 0; group < groups; ++group) {
    costs.push_back(PredictCost(corpus.Lengths(group), *recipe.method, label, pack.cost));
  }
  const data::BatchPlan plan(groups, PlanSettings(recipe));
  const std::int64_t steps = std::min(plan.StepsPerEpoch(), TotalSteps(recipe, groups));
  std::vector<std::int64_t> seen;
  for (std::int64_t step = 0; step < steps; ++step) {
    for (const std::int64_t group : plan.StepGroups(step)) seen.push_back(group);
  }
  const auto count = static_cast<std::int64_t>(seen.size());
  std::vector<std::int64_t> wanted;
  for (std::int64_t i = 0; i < kSpread; ++i)
    wanted.push_back(seen[static_cast<std::size_t>(i * count / kSpread)]);
  std::stable_sort(seen.begin(), seen.end(), [&](std::int64_t a, std::int64_t b) {
    return costs[static_cast<std::size_t>(a)] > costs[static_cast<std::size_t>(b)];
  });
  wanted.insert(wanted.end(), seen.begin(), seen.begin() + std::min(count, kCostliest));

  const AdapterSettings* adapter = recipe.adapter.lora ? &recipe.adapter.settings : nullptr;
  const std::int64_t element_bytes = ElementBytes(recipe.model.dtype);
  PeakPass peak;
  for (std::int64_t step = 0; step < steps; ++step) {
    const std::vector<std::int64_t> step_groups = plan.StepGroups(step);
    for (const std::int64_t group : wanted) {
      if (std::find(step_groups.begin(), step_groups.end(), group) == step_groups.end()) continue;
      std::vector<data::LabelledGroup> labelled;
      const std::vector<std::int64_t> together =
          recipe.train.canonical ? std::vector{group} : ShareWith(group, step_groups, costs, ranks);
      for (const std::int64_t other : together) {
        labelled.push_back(Label(*recipe.method, corpus.Read(other), label, 0));
      }
      std::int64_t recognition_bytes = 0;  // of the current unit
      bool recognising = false;
      for (const data::RowPass& pass : data::PackGroups(labelled, pack, 1.0)) {
        const bool recognition = pass.kind == data::PassKind::kRecognition;
        PassMemory memory =
            MemoryOfPass(config, adapter, element_bytes, recompute && !recognition, pass, device);
        if (recognition && !recognising) recognition_bytes = 0;
        recognising = recognition;
        if (recognition) recognition_bytes += memory.saved_bytes;
        if (!recognition) memory.saved_bytes += recognition_bytes;
        if (memory.PeakBytes() <= peak.memory.PeakBytes()) continue;
        peak.memory = memory;
        peak.rows = pass.batch * pass.length;
      }
    }
  }
  return peak;
}

}  // namespace plural::trainer
