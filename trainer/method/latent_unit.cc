#include "trainer/method/latent_unit.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

#include "data/random.h"
#include "trainer/method/pass_forward.h"
#include "trainer/ops/from_device.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

// The flat row that predicts the first response token of sequence q: its query or latent row.
std::int64_t LeadingRow(const data::RowPass& pass, std::size_t q) {
  const auto first_edge = static_cast<std::size_t>(pass.path[static_cast<std::size_t>(pass.path_offset[q])]);
  return pass.edges[first_edge].source;
}

// The index of each of `rows` among the distinct source rows of a pass's edges, in ascending order.
std::vector<std::int64_t> PlacesAmong(const RowNumbers& source, const std::vector<std::int64_t>& rows) {
  std::vector<std::int64_t> places;
  for (const std::int64_t row : rows) {
    places.push_back(std::ranges::lower_bound(source.host, row) - source.host.begin());
  }
  return places;
}

}  // namespace

at::Tensor GumbelNoise(const at::Tensor& uniform) {
  constexpr double kEpsilon = 1e-10;
  return (kEpsilon - (uniform + kEpsilon).log()).log().neg();
}

at::Tensor LatentDraws(std::uint64_t latent_key, int response_index, std::int64_t latents) {
  data::CounterRandom random{
      data::MixKey(latent_key, data::Purpose::kLatents, static_cast<std::uint64_t>(response_index))};
  const at::Tensor uniform_K = at::empty({latents}, at::kDouble);
  auto* values = uniform_K.mutable_data_ptr<double>();
  for (std::int64_t z = 0; z < latents; ++z) values[z] = random.Uniform();
  return uniform_K;
}

at::Tensor SoftGumbel(const at::Tensor& logits_RK, const at::Tensor& noise_RK, double temperature) {
  return at::softmax((logits_RK + noise_RK) / temperature, -1);
}

at::Tensor BagOfWords(const at::Tensor& hidden_RE, const VocabularyHead& head,
                      const std::vector<std::int64_t>& row_Q,
                      const std::vector<std::vector<data::Token>>& tokens_Q) {
  // Every (row, token) is one edge of the head, however often it occurs.
  std::map<std::pair<std::int64_t, data::Token>, std::int32_t> edges;
  for (std::size_t q = 0; q < row_Q.size(); ++q) {
    for (const data::Token token : tokens_Q[q]) edges[{row_Q[q], token}] = 0;
  }
  std::vector<std::int64_t> edge_row, target;
  for (auto& [edge, index] : edges) {
    index = static_cast<std::int32_t>(edge_row.size());
    edge_row.push_back(edge.first);
    target.push_back(edge.second);
  }
  std::vector<std::int32_t> path, path_offset = {0};
  for (std::size_t q = 0; q < row_Q.size(); ++q) {
    for (const data::Token token : tokens_Q[q]) path.push_back(edges.at({row_Q[q], token}));
    path_offset.push_back(static_cast<std::int32_t>(path.size()));
  }
  const EdgeList list(hidden_RE.size(0), edge_row, target, hidden_RE.device());
  return SequenceSums(path, path_offset, EdgeLogProb(hidden_RE, head, list).log_p).neg();
}

std::vector<LatentUnitPasses> LatentUnitsOf(std::span<const data::RowPass> passes) {
  std::vector<LatentUnitPasses> units;
  const auto run_of = [&](std::size_t from, data::PassKind kind) {
    std::size_t to = from;
    while (to < passes.size() && passes[to].kind == kind) ++to;
    return passes.subspan(from, to - from);
  };
  for (std::size_t at = 0; at < passes.size();) {
    LatentUnitPasses unit;
    unit.recognition = run_of(at, data::PassKind::kRecognition);
    unit.generation = run_of(at + unit.recognition.size(), data::PassKind::kPrediction);
    if (unit.recognition.empty()) {
      throw std::logic_error("LatentUnitsOf: passes without recognition; label with method cvf");
    }
    at += unit.recognition.size() + unit.generation.size();
    units.push_back(unit);
  }
  return units;
}

at::Tensor RecognitionLogits(const Decoder& model, std::span<const data::RowPass> passes,
                             std::optional<std::uint64_t> dropout_key) {
  const Latents& latents = *model.LatentHeads();
  std::vector<at::Tensor> logits;
  for (const data::RowPass& pass : passes) {
    const RowNumbers query = EdgesOf(pass, false, model.Device()).source;
    const InjectedRows queries{query.on_device, latents.query_E.expand({query.on_device.size(0), -1})};
    const SourceStates states = HiddenOfSources(model, pass, query, dropout_key, queries);
    std::vector<std::int64_t> rows;
    for (std::size_t q = 0; q < pass.sequences.size(); ++q) rows.push_back(LeadingRow(pass, q));
    const at::Tensor place_Q = ToDevice(PlacesAmong(query, rows), at::kLong, model.Device());
    logits.push_back(latents.Recognize(states.hidden_SE).index_select(0, place_Q));
  }
  return at::cat(logits, 0);
}

LatentUnit::LatentUnit(const Decoder& model, std::span<const data::RowPass> recognition,
                       std::span<const data::LabelledGroup> groups, double scale,
                       const LatentSettings& settings, std::optional<std::uint64_t> dropout_key)
    : model_(model), groups_(groups), scale_(scale), settings_(settings), dropout_key_(dropout_key) {
  for (const data::LabelledGroup& group : groups) row_of_.emplace_back(group.recognition.size(), -1);
  const std::int64_t latents = model.LatentHeads()->Count();
  std::vector<at::Tensor> noise;
  for (const data::RowPass& pass : recognition) {
    for (const auto& ref : pass.sequences) {
      const data::LabelledGroup& group = groups[static_cast<std::size_t>(ref.group)];
      const auto response = static_cast<std::size_t>(ref.sequence);
      row_of_[static_cast<std::size_t>(ref.group)][response] = static_cast<std::int64_t>(responses_.size());
      responses_.push_back(ref);
      noise.push_back(
          GumbelNoise(LatentDraws(group.latent_key, group.recognition[response].response_index, latents)));
    }
  }
  noise_RK_ = ToDevice(at::stack(noise), model.Device());
  recognised_RK_ = RecognitionLogits(model, recognition, dropout_key).to(at::kDouble);
  logits_RK_ = recognised_RK_.detach();
  logits_RK_.set_requires_grad(c10::GradMode::is_enabled());
}

std::int64_t LatentUnit::RowOf(const data::RowPass::SequenceRef& ref) const {
  const auto group = static_cast<std::size_t>(ref.group);
  const data::LabelledSequence& sequence = groups_[group].sequences[static_cast<std::size_t>(ref.sequence)];
  const std::int64_t row = row_of_[group][static_cast<std::size_t>(sequence.response_index)];
  if (row < 0) throw std::logic_error("LatentUnit: a generation pass of another unit");
  return row;
}

at::Tensor LatentUnit::Run(const data::RowPass& pass, bool recompute) {
  const at::Device device = model_.Device();
  const Latents& latents = *model_.LatentHeads();
  const bool exact = settings_.estimator == LatentEstimator::kExact;
  const PassEdges edges = EdgesOf(pass, false, device);

  // For each sequence: its row of logits, its latent, its weight in the loss.
  PassValues values;
  std::vector<std::int64_t> leading;
  std::vector<double> weight;
  std::vector<std::vector<data::Token>> tokens;
  for (std::size_t q = 0; q < pass.sequences.size(); ++q) {
    const auto& ref = pass.sequences[q];
    const data::LabelledSequence& sequence =
        groups_[static_cast<std::size_t>(ref.group)].sequences[static_cast<std::size_t>(ref.sequence)];
    values.row_Q.push_back(RowOf(ref));
    values.latent_Q.push_back(sequence.latent - 1);
    leading.push_back(LeadingRow(pass, q));
    weight.push_back(sequence.likelihood.front() * scale_);  // one weight for all tokens of a response
    tokens.push_back(sequence.response);
    values.tokens_Q.push_back(static_cast<std::int64_t>(sequence.response.size()));
  }

  // The distinct latent rows, and the embedding of each.
  std::map<std::int64_t, std::int64_t> embedding_of;
  for (std::size_t q = 0; q < leading.size(); ++q) {
    embedding_of[leading[q]] = exact ? values.latent_Q[q] : values.row_Q[q];
  }
  std::vector<std::int64_t> latent_rows, embedding;
  for (const auto& [row, index] : embedding_of) {
    latent_rows.push_back(row);
    embedding.push_back(index);
  }
  const at::Tensor choices =
      exact ? latents.table_KE
            : at::mm(SoftGumbel(logits_RK_, noise_RK_, settings_.temperature).to(latents.table_KE.dtype()),
                     latents.table_KE);
  const InjectedRows injected{ToDevice(latent_rows, at::kLong, device),
                              choices.index_select(0, ToDevice(embedding, at::kLong, device))};
  const SourceStates states = HiddenOfSources(model_, pass, edges.source, dropout_key_, injected, recompute);
  HeadSettings head;
  head.dropout = states.head_dropout;
  const EdgeLogProbs edge = EdgeLogProb(states.hidden_SE, model_.Head(), edges.list, head);
  const at::Tensor nll_Q = SequenceSums(pass.path, pass.path_offset, edge.log_p).neg();
  values.nll_Q = nll_Q.detach();

  at::Tensor weight_Q = ToDevice(weight, at::kDouble, device);
  if (exact) {
    const at::Tensor q_RK = at::softmax(logits_RK_, -1);
    const at::Tensor q_Q = q_RK.index_select(0, ToDevice(values.row_Q, at::kLong, device))
                               .gather(1, ToDevice(values.latent_Q, at::kLong, device).unsqueeze(1));
    weight_Q = weight_Q * q_Q.squeeze(1);
    values.share_Q = q_Q.detach();
  }
  at::Tensor loss = (weight_Q * nll_Q).sum();
  values.likelihood = loss.detach();
  if (settings_.bow_weight > 0.0) {
    const at::Tensor hidden_LE =
        states.hidden_SE.index_select(0, ToDevice(PlacesAmong(edges.source, latent_rows), at::kLong, device));
    std::vector<std::int64_t> bow_row;
    for (const std::int64_t row : leading) {
      bow_row.push_back(std::ranges::lower_bound(latent_rows, row) - latent_rows.begin());
    }
    const VocabularyHead& head_now = model_.Head();
    const VocabularyHead frozen_head{{head_now.linear.weight_OI.detach(), {}}, head_now.softcap};
    const at::Tensor bow_Q =
        BagOfWords(latents.Bow(hidden_LE, model_.Config().rms_norm_eps), frozen_head, bow_row, tokens);
    const at::Tensor bow = settings_.bow_weight * (weight_Q * bow_Q).sum();
    loss = loss + bow;
    values.bow = bow.detach();
  }
  passes_.push_back(std::move(values));
  return loss;
}

BackwardPart LatentUnit::Recognition(bool last) {
  // Moved out: the unit is kept for its figures, but its graph is freed.
  return {std::exchange(recognised_RK_, at::Tensor()), logits_RK_.grad(), last};
}

void LatentUnit::FinishBackward() { Recognition(true).Backward(); }

// `nll_RK`: mean token loss of each response under each latent; empty unless all latents are tried.
LatentSums LatentUnit::Sums(const std::vector<double>& q_RK,
                            const std::vector<std::vector<double>>& nll_RK) const {
  LatentSums sums;
  const auto latents = static_cast<std::ptrdiff_t>(q_RK.size() / responses_.size());
  auto q = q_RK.begin();
  for (std::size_t row = 0; row < responses_.size(); ++row, q += latents) {
    sums.AddResponse({q, q + latents}, nll_RK[row]);
  }
  return sums;
}

UnitFigures LatentUnit::ReadFigures(std::span<const LatentUnit> units) {
  std::vector<at::Tensor> tensors;
  for (const LatentUnit& unit : units) {
    tensors.push_back(at::softmax(unit.logits_RK_.detach(), -1));
    for (const PassValues& pass : unit.passes_) {
      tensors.insert(tensors.end(), {pass.likelihood, pass.bow, pass.nll_Q, pass.share_Q});
    }
  }
  const std::vector<std::vector<double>> read = ReadTogether(tensors);
  UnitFigures figures;
  std::size_t next = 0;
  for (const LatentUnit& unit : units) {
    const std::vector<double>& q_RK = read[next++];
    std::vector<std::vector<double>> nll_RK(unit.responses_.size());
    for (const PassValues& pass : unit.passes_) {
      figures.likelihood += read[next++][0];
      const std::vector<double>& bow = read[next++];
      const std::vector<double>& nll_Q = read[next++];
      const std::vector<double>& share_Q = read[next++];
      if (!bow.empty()) figures.bow += bow[0];
      for (std::size_t q = 0; q < nll_Q.size(); ++q) {
        figures.logprob_nats -= (share_Q.empty() ? 1.0 : share_Q[q]) * nll_Q[q];
        if (share_Q.empty()) continue;
        std::vector<double>& nll_K = nll_RK[static_cast<std::size_t>(pass.row_Q[q])];
        nll_K.resize(static_cast<std::size_t>(unit.logits_RK_.size(1)));
        nll_K[static_cast<std::size_t>(pass.latent_Q[q])] = nll_Q[q] / static_cast<double>(pass.tokens_Q[q]);
      }
    }
    figures.sums.Add(unit.Sums(q_RK, nll_RK));
  }
  return figures;
}

std::vector<int> RecognizeLatents(const Decoder& model, const data::Group& group,
                                  const data::PackSettings& pack) {
  const c10::NoGradGuard no_grad;
  data::LabelledGroup labelled = Label(MethodNamed("cvf"), group, {.responses = 0}, /*epoch=*/0);
  labelled.sequences.clear();
  const std::vector<data::RowPass> passes = data::PackGroups({&labelled, 1}, pack, 1.0);
  const at::Tensor latent_R = RecognitionLogits(model, passes).argmax(1).to(at::kCPU);
  std::vector<int> latents(group.responses.size());
  std::int64_t row = 0;
  for (const data::RowPass& pass : passes) {
    for (const auto& ref : pass.sequences) {
      latents[static_cast<std::size_t>(ref.sequence)] = latent_R[row++].item<int>() + 1;
    }
  }
  return latents;
}

namespace {

class LatentLosses : public PassLosses {
 public:
  explicit LatentLosses(LossContext context) : context_(std::move(context)) {
    const std::vector<LatentUnitPasses> units = LatentUnitsOf(context_.passes);
    units_.reserve(units.size());
    for (const LatentUnitPasses& unit : units) {
      for (const data::RowPass& pass : unit.generation) parts_.push_back({unit.recognition, &pass});
      parts_.push_back({unit.recognition, nullptr});
    }
  }

  std::optional<BackwardPart> Next() override {
    if (next_ == parts_.size()) return std::nullopt;
    const Part& part = parts_[next_];
    if (next_ == 0 || parts_[next_ - 1].generation == nullptr) {
      units_.emplace_back(context_.model, part.recognition, context_.groups, context_.scale,
                          context_.settings.latent, context_.dropout_key);
    }
    ++next_;
    if (part.generation == nullptr) return units_.back().Recognition(next_ == parts_.size());
    const auto place = static_cast<std::size_t>(part.generation - context_.passes.data());
    return BackwardPart{units_.back().Run(*part.generation, context_.Recomputes(place)), {}, false};
  }

  void AddTo(Sums& sums, std::vector<std::vector<double>>& log_p) override {
    const UnitFigures figures = LatentUnit::ReadFigures(units_);
    sums["likelihood"] += figures.likelihood;
    sums["bow"] += figures.bow;
    figures.sums.AddTo(sums);
    log_p = {{figures.logprob_nats}};
  }

 private:
  // One backward: of a generation pass, or (null) of the unit's recognition passes.
  struct Part {
    std::span<const data::RowPass> recognition;
    const data::RowPass* generation = nullptr;
  };

  LossContext context_;
  std::vector<Part> parts_;
  std::vector<LatentUnit> units_;
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<PassLosses> MakeLatentLosses(const LossContext& context) {
  return std::make_unique<LatentLosses>(context);
}

}  // namespace plural::trainer
