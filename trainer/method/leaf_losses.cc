#include "trainer/method/leaf_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <map>
#include <utility>

#include "trainer/method/pass_forward.h"
#include "trainer/ops/from_device.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

class LeafLosses : public PassLosses {
 public:
  explicit LeafLosses(LossContext context) : context_(std::move(context)) {
    const at::TensorOptions options = at::TensorOptions(at::kDouble).device(context_.model.Device());
    for (const data::LabelledGroup& group : context_.groups) {
      leaves_.push_back({at::zeros({static_cast<std::int64_t>(group.sequences.size())}, options), {}, {}});
    }
    std::vector<std::int64_t> passes_of(context_.groups.size(), 0);
    for (const data::RowPass& pass : context_.passes) {
      for (const auto& [group, sequences] : SequencesOf(pass)) ++passes_of[group];
    }
    // Phase 1, for cut groups only.
    const c10::NoGradGuard no_grad;
    for (std::size_t i = 0; i < context_.passes.size(); ++i) {
      bool has_cut = false;
      for (const auto& [group, sequences] : SequencesOf(context_.passes[i])) has_cut |= passes_of[group] > 1;
      if (has_cut) Keep(context_.passes[i], LogProbOf(i));
    }
    for (std::size_t group = 0; group < leaves_.size(); ++group) {
      if (passes_of[group] > 1) FindWeights(group);
    }
  }

  std::optional<BackwardPart> Next() override {
    if (next_ == context_.passes.size()) return std::nullopt;
    const data::RowPass& pass = context_.passes[next_];
    const at::Tensor log_p_Q = LogProbOf(next_);
    Keep(pass, log_p_Q.detach());
    std::vector<at::Tensor> weight_Q(pass.sequences.size());
    for (const auto& [group, places] : SequencesOf(pass)) {
      if (!leaves_[group].weight_Q.defined()) FindWeights(group);
      for (const std::size_t q : places) {
        weight_Q[q] = leaves_[group].weight_Q[pass.sequences[q].sequence];
      }
    }
    ++next_;
    return BackwardPart{(at::stack(weight_Q) * log_p_Q).sum(), {}, next_ == context_.passes.size()};
  }

  void AddTo(Sums& sums, std::vector<std::vector<double>>& log_p) override {
    std::vector<at::Tensor> tensors;
    for (const Leaves& leaves : leaves_) {
      tensors.insert(tensors.end(), leaves.terms.begin(), leaves.terms.end());
      tensors.push_back(leaves.log_p_Q);
    }
    const std::vector<std::vector<double>> read = ReadTogether(tensors);
    std::size_t next = 0;
    log_p.clear();
    for (std::size_t group = 0; group < leaves_.size(); ++group) {
      for (std::size_t term = 0; term < leaves_[group].terms.size(); ++term) {
        sums[context_.method.terms[term]] += read[next++][0];
      }
      log_p.push_back(read[next++]);
      if (context_.method.add_sums != nullptr) {
        context_.method.add_sums(context_.groups[group], log_p.back(), sums);
      }
    }
  }

 private:
  struct Leaves {
    at::Tensor log_p_Q;             // of the group's sequences, filled pass by pass
    at::Tensor weight_Q;            // dL/ds; undefined until all of log_p_Q is known
    std::vector<at::Tensor> terms;  // the loss, scalars
  };

  // Indices of the pass's sequences, by group.
  static std::map<std::size_t, std::vector<std::size_t>> SequencesOf(const data::RowPass& pass) {
    std::map<std::size_t, std::vector<std::size_t>> places;
    for (std::size_t q = 0; q < pass.sequences.size(); ++q) {
      places[static_cast<std::size_t>(pass.sequences[q].group)].push_back(q);
    }
    return places;
  }

  at::Tensor LogProbOf(std::size_t pass) const {
    const data::RowPass& rows = context_.passes[pass];
    const PassEdges edges = EdgesOf(rows, false, context_.model.Device());
    const SourceStates states = HiddenOfSources(context_.model, rows, edges.source, context_.dropout_key, {},
                                                context_.Recomputes(pass));
    HeadSettings head;
    head.dropout = states.head_dropout;
    return SequenceSums(rows.path, rows.path_offset,
                        EdgeLogProb(states.hidden_SE, context_.model.Head(), edges.list, head).log_p);
  }

  void Keep(const data::RowPass& pass, const at::Tensor& log_p_Q) {
    for (const auto& [group, places] : SequencesOf(pass)) {
      std::vector<std::int64_t> from, to;
      for (const std::size_t q : places) {
        from.push_back(static_cast<std::int64_t>(q));
        to.push_back(pass.sequences[q].sequence);
      }
      const at::Device device = log_p_Q.device();
      leaves_[group].log_p_Q.index_copy_(0, ToDevice(to, at::kLong, device),
                                         log_p_Q.index_select(0, ToDevice(from, at::kLong, device)));
    }
  }

  void FindWeights(std::size_t group) {
    Leaves& leaves = leaves_[group];
    const c10::AutoGradMode grad(true);
    const at::Tensor log_p_Q = leaves.log_p_Q.detach().clone().set_requires_grad(true);
    at::Tensor loss;
    for (const at::Tensor& term :
         context_.method.leaf_loss(context_.groups[group], log_p_Q, context_.scale, context_.settings)) {
      loss = loss.defined() ? loss + term : term;
      leaves.terms.push_back(term.detach());
    }
    loss.backward();
    leaves.weight_Q = log_p_Q.grad();
  }

  LossContext context_;
  std::vector<Leaves> leaves_;  // per group
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<PassLosses> MakeLeafLosses(const LossContext& context) {
  return std::make_unique<LeafLosses>(context);
}

}  // namespace plural::trainer
