#include "trainer/method/pass_losses.h"

#include <c10/core/GradMode.h>

#include <utility>

#include "trainer/method/leaf_losses.h"
#include "trainer/method/objective.h"

namespace plural::trainer {
namespace {

// Losses that need nothing but the pass itself.
class EdgeLosses : public PassLosses {
 public:
  explicit EdgeLosses(LossContext context) : context_(std::move(context)) {
    settings_.method = &context_.method;
    settings_.values = context_.settings;
    settings_.weighted_edges_only = !context_.whole_sequences && context_.method.add_sums == nullptr;
    settings_.dropout_key = context_.dropout_key;
  }

  std::optional<BackwardPart> Next() override {
    const std::size_t pass = values_.size();
    if (pass == context_.passes.size()) return std::nullopt;
    settings_.recompute = context_.Recomputes(pass);
    PassResult result = RunPass(context_.model, context_.passes[pass], settings_);
    values_.push_back(std::move(result.values));
    return BackwardPart{std::move(result.loss), {}, pass + 1 == context_.passes.size()};
  }

  void AddTo(Sums& sums, std::vector<std::vector<double>>& log_p) override {
    const std::vector<PassFigures> figures = ReadFigures(context_.passes, values_);
    log_p.assign(context_.groups.size(), {});
    for (std::size_t g = 0; g < log_p.size(); ++g) log_p[g].resize(context_.groups[g].sequences.size());
    for (std::size_t i = 0; i < figures.size(); ++i) {
      for (std::size_t term = 0; term < context_.method.terms.size(); ++term) {
        sums[context_.method.terms[term]] += figures[i].terms[term];
      }
      for (std::size_t s = 0; s < figures[i].sequence_log_p.size(); ++s) {
        const auto& ref = context_.passes[i].sequences[s];
        log_p[static_cast<std::size_t>(ref.group)][static_cast<std::size_t>(ref.sequence)] =
            figures[i].sequence_log_p[s];
      }
    }
    if (context_.method.add_sums == nullptr) return;
    for (std::size_t g = 0; g < log_p.size(); ++g) {
      context_.method.add_sums(context_.groups[g], log_p[g], sums);
    }
  }

 private:
  LossContext context_;
  ObjectiveSettings settings_;
  std::vector<PassValues> values_;
};

}  // namespace

std::unique_ptr<PassLosses> MakePassLosses(const LossContext& context) {
  if (context.method.losses != nullptr) return context.method.losses(context);
  if (context.method.leaf_loss != nullptr) return MakeLeafLosses(context);
  return std::make_unique<EdgeLosses>(context);
}

void AddWithoutGradients(const LossContext& context, Sums& sums, std::vector<std::vector<double>>& log_p) {
  const c10::NoGradGuard no_grad;
  const std::unique_ptr<PassLosses> losses = MakePassLosses(context);
  while (losses->Next()) {
  }
  losses->AddTo(sums, log_p);
}

}  // namespace plural::trainer
