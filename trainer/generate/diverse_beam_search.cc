#include "trainer/generate/diverse_beam_search.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>

#include "data/error.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {
namespace {

constexpr double kNotLive = -1e9;  // below every sum of log-probabilities

void CheckFitsContext(const ModelConfig& config, const data::Group& prompt, std::int64_t tokens,
                      std::int64_t max_new_tokens) {
  if (tokens + max_new_tokens <= config.max_position_embeddings) return;
  throw data::DataError("prompt '" + prompt.id + "': " + std::to_string(tokens) + " tokens and " +
                        std::to_string(max_new_tokens) + " new ones exceed the model's context of " +
                        std::to_string(config.max_position_embeddings) +
                        "; shorten the prompt or lower --max-new-tokens");
}

std::vector<GeneratedResponse> ToResponses(const std::vector<BeamHypothesis>& hypotheses, double seconds) {
  std::vector<GeneratedResponse> responses;
  for (const BeamHypothesis& hypothesis : hypotheses) {
    GeneratedResponse& response = responses.emplace_back();
    response.index = static_cast<std::int64_t>(responses.size()) - 1;
    response.tokens = hypothesis.tokens;
    response.logprob = hypothesis.logprob;
    response.finished = hypothesis.finished;
    response.score = hypothesis.score;
    // The first token comes from the prefill, the end needs the token before it fed.
    response.steps = static_cast<std::int64_t>(hypothesis.tokens.size()) - (hypothesis.finished ? 0 : 1);
    response.seconds = seconds;
  }
  return responses;
}

}  // namespace

DiverseBeamSearch::DiverseBeamSearch(const DiverseBeamSettings& settings,
                                     std::vector<std::int64_t> end_tokens, data::Token padding)
    : settings_(settings), end_tokens_(std::move(end_tokens)), padding_(padding) {
  if (settings.groups < 1 || settings.beams < settings.groups || settings.beams % settings.groups != 0) {
    throw std::logic_error("DiverseBeamSearch: " + std::to_string(settings.beams) + " beams in " +
                           std::to_string(settings.groups) + " groups");
  }
  groups_.resize(static_cast<std::size_t>(settings.groups));
  for (Group& group : groups_) {
    group.beams.resize(static_cast<std::size_t>(settings.beams / settings.groups));
    // All beams stand at the same place: if several were live they would all take the same tokens.
    for (std::size_t b = 1; b < group.beams.size(); ++b) group.beams[b].sum = kNotLive;
  }
}

bool DiverseBeamSearch::IsEnd(std::int64_t token) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end();
}

std::vector<DiverseBeamSearch::Candidate> DiverseBeamSearch::BestCandidates(
    const Group& group, std::span<const double> log_p, std::int64_t vocabulary,
    const std::vector<std::int64_t>& chosen) const {
  std::vector<Candidate> candidates;
  candidates.reserve(group.beams.size() * static_cast<std::size_t>(vocabulary));
  for (std::size_t b = 0; b < group.beams.size(); ++b) {
    const auto row = log_p.subspan(static_cast<std::size_t>(group.beams[b].row * vocabulary),
                                   static_cast<std::size_t>(vocabulary));
    for (std::int64_t token = 0; token < vocabulary; ++token) {
      const auto v = static_cast<std::size_t>(token);
      const double penalty = settings_.diversity_penalty * static_cast<double>(chosen[v]);
      candidates.push_back({row[v] - penalty + group.beams[b].sum, static_cast<std::int64_t>(b), token});
    }
  }
  // Enough that every beam goes on even if all ends stand above: one other token for each.
  const std::size_t wanted = std::max<std::size_t>(2, 1 + end_tokens_.size()) * group.beams.size();
  const std::size_t count = std::min(wanted, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(count),
                    candidates.end(), [](const Candidate& a, const Candidate& b) {
                      if (a.sum != b.sum) return a.sum > b.sum;
                      return std::pair(a.beam, a.token) < std::pair(b.beam, b.token);
                    });
  candidates.resize(count);
  return candidates;
}

void DiverseBeamSearch::Close(std::size_t g, const Beam& beam, bool finished, std::int64_t generated) {
  Group& group = groups_[g];
  const double score = beam.sum / static_cast<double>(generated);
  if (group.closed.size() >= group.beams.size() && score <= group.worst) return;
  group.closed.push_back({beam.tokens, finished, score, beam.logprob, static_cast<std::int64_t>(g)});
  const auto lower = [](const BeamHypothesis& a, const BeamHypothesis& b) { return a.score < b.score; };
  if (group.closed.size() > group.beams.size()) {
    group.closed.erase(std::min_element(group.closed.begin(), group.closed.end(), lower));
  }
  group.worst = std::min_element(group.closed.begin(), group.closed.end(), lower)->score;
}

void DiverseBeamSearch::AdvanceGroup(std::size_t g, std::span<const double> log_p, std::int64_t vocabulary,
                                     const std::vector<std::int64_t>& chosen) {
  Group& group = groups_[g];
  const std::vector<Candidate> candidates = BestCandidates(group, log_p, vocabulary, chosen);
  std::vector<Beam> next;
  for (std::size_t rank = 0; rank < candidates.size() && next.size() < group.beams.size(); ++rank) {
    const auto& [sum, b, token] = candidates[rank];
    Beam beam = group.beams[static_cast<std::size_t>(b)];
    beam.sum = sum;
    beam.logprob += log_p[static_cast<std::size_t>(beam.row * vocabulary + token)];
    if (IsEnd(token)) {
      if (rank < group.beams.size()) Close(g, beam, true, generated_);
      continue;
    }
    beam.tokens.push_back(static_cast<data::Token>(token));
    next.push_back(std::move(beam));
  }
  if (next.size() < group.beams.size()) {
    throw std::logic_error("DiverseBeamSearch: too few tokens in a vocabulary of " +
                           std::to_string(vocabulary));
  }
  group.beams = std::move(next);
  group.done = group.closed.size() == group.beams.size() &&
               group.worst >= candidates.front().sum / static_cast<double>(generated_);
}

DiverseBeamSearch::Next DiverseBeamSearch::Advance(std::span<const double> log_p, std::int64_t vocabulary) {
  ++generated_;
  // How often each token was chosen by the groups before, in this step.
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(vocabulary), 0);
  Next answer;
  bool open = false;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Group& group = groups_[g];
    const bool was_done = group.done;
    if (!was_done) AdvanceGroup(g, log_p, vocabulary, chosen);
    for (Beam& beam : group.beams) {
      if (!was_done) {
        ++chosen[static_cast<std::size_t>(beam.tokens.back())];
      } else if (padding_ >= 0) {
        ++chosen[static_cast<std::size_t>(padding_)];
      }
      if (group.done) continue;
      answer.row.push_back(beam.row);
      answer.token.push_back(beam.tokens.back());
      beam.row = static_cast<std::int64_t>(answer.row.size()) - 1;
    }
    open |= !group.done;
  }
  if (open && generated_ < settings_.max_new_tokens) return answer;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g].done) continue;
    for (const Beam& beam : groups_[g].beams) Close(g, beam, false, generated_);
    groups_[g].done = true;
  }
  return {};
}

std::vector<BeamHypothesis> DiverseBeamSearch::Hypotheses() const {
  std::vector<BeamHypothesis> all;
  for (const Group& group : groups_) all.insert(all.end(), group.closed.begin(), group.closed.end());
  // transformers sorts upwards, keeping the order of equals, and takes from the end.
  std::reverse(all.begin(), all.end());
  std::stable_sort(all.begin(), all.end(),
                   [](const BeamHypothesis& a, const BeamHypothesis& b) { return a.score > b.score; });
  return all;
}

std::vector<GeneratedPrompt> GenerateDiverseBeams(const Decoder& model,
                                                  const std::vector<data::Group>& prompts,
                                                  const DiverseBeamSettings& settings,
                                                  const StopSignal* stop) {
  using Clock = std::chrono::steady_clock;
  const ModelConfig& config = model.Config();
  const std::int64_t vocabulary = config.vocab_size;
  // transformers pads with the end where a model names no padding.
  data::Token padding = static_cast<data::Token>(config.pad_token_id);
  if (padding < 0 && !config.eos_token_ids.empty()) {
    padding = static_cast<data::Token>(config.eos_token_ids.front());
  }

  struct Search {
    DiverseBeamSearch beams;
    std::size_t prompt;
    std::int64_t rows;
  };
  std::vector<GeneratedPrompt> results(prompts.size());
  std::vector<Prefill> prefills;
  std::vector<at::Tensor> first_logits;
  std::vector<Clock::time_point> start;
  std::vector<Search> searches;
  std::int64_t longest = 0;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const auto prompt_tokens =
        static_cast<std::int64_t>(prompts[p].prompt_tokens.size() + prompts[p].tails[0].size());
    CheckFitsContext(config, prompts[p], prompt_tokens, settings.max_new_tokens);
    longest = std::max(longest, prompt_tokens);
    start.push_back(Clock::now());
    prefills.push_back(RunPrefill(model, prompts[p], {0}));
    results[p].token_forwards = prefills.back().k_NGD.front().size(0);
    first_logits.push_back(prefills.back().logits_LV);
    searches.push_back({DiverseBeamSearch(settings, config.eos_token_ids, padding), p, 1});
  }
  if (searches.empty()) return results;

  KeyValueCache cache(model, static_cast<std::int64_t>(prompts.size()) * settings.beams,
                      longest + settings.max_new_tokens, KernelsOf(model.Device()));
  at::Tensor logits_RV = at::cat(first_logits, 0);
  for (bool first = true; !searches.empty(); first = false) {
    if (stop != nullptr && stop->Requested()) return {};
    const at::Tensor log_p_RV = at::log_softmax(logits_RV, -1, at::kDouble).cpu().contiguous();
    const double* log_p = log_p_RV.const_data_ptr<double>();
    std::vector<Search> open;
    std::vector<std::int64_t> rows, tokens;
    std::int64_t row = 0;
    for (Search& search : searches) {
      const auto next = search.beams.Advance(
          {log_p + row * vocabulary, static_cast<std::size_t>(search.rows * vocabulary)}, vocabulary);
      GeneratedPrompt& result = results[search.prompt];
      if (next.row.empty()) {
        result.seconds = std::chrono::duration<double>(Clock::now() - start[search.prompt]).count();
        result.responses = ToResponses(search.beams.Hypotheses(), result.seconds);
      } else {
        for (const std::int64_t parent : next.row) {
          if (first) cache.Start(static_cast<std::int64_t>(rows.size()), prefills[search.prompt], 0);
          rows.push_back(row + parent);
        }
        tokens.insert(tokens.end(), next.token.begin(), next.token.end());
        ++result.decode_steps;
        result.token_forwards += static_cast<std::int64_t>(next.row.size());
        open.push_back({std::move(search.beams), search.prompt, static_cast<std::int64_t>(next.row.size())});
      }
      row += search.rows;
    }
    searches = std::move(open);
    if (searches.empty()) break;
    if (!first) cache.Keep(rows);
    logits_RV = cache.Step(model, tokens);
  }
  return results;
}

}  // namespace plural::trainer
