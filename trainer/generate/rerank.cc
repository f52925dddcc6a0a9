#include "trainer/generate/rerank.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "data/error.h"
#include "data/labelling.h"
#include "data/tree.h"
#include "trainer/method/evaluation.h"

namespace plural::trainer {
namespace {

// One sequence a response and rating, in this order; nothing is weighted, only read.
data::LabelledGroup JudgedSequences(const ModelConfig& config, const data::Group& question,
                                    const std::vector<std::vector<data::Token>>& responses) {
  data::LabelledGroup group;
  group.group = question.index;
  for (const auto& response : responses) {
    std::vector<data::Token> asked = question.prompt_tokens;
    asked.insert(asked.end(), response.begin(), response.end());
    asked.insert(asked.end(), question.tails[0].begin(), question.tails[0].end());
    const data::SharedTokens prefix(std::move(asked));
    for (const data::Response& rating : question.responses) {
      const auto tokens = static_cast<std::int64_t>(prefix->size() + rating.tokens.size());
      if (tokens > config.max_position_embeddings) {
        throw data::DataError("prompt '" + question.id + "': the question for a response's rating has " +
                              std::to_string(tokens) + " tokens, the model's context is " +
                              std::to_string(config.max_position_embeddings) +
                              "; shorten the prompt or the responses");
      }
      data::LabelledSequence sequence;
      sequence.prefix = prefix;
      sequence.response = rating.tokens;
      sequence.likelihood.assign(rating.tokens.size(), 0.0);
      sequence.unlikelihood.assign(rating.tokens.size(), 0.0);
      group.sequences.push_back(std::move(sequence));
    }
  }
  return group;
}

std::vector<Rating> RateSequences(const Decoder& base, const data::LabelledGroup& sequences) {
  const std::vector<double> log_p = SequenceLogP(base, sequences, data::PackSettings{});
  std::vector<Rating> ratings;
  for (std::size_t first = 0; first < log_p.size(); first += kRatings) {
    ratings.push_back(RatingOf(std::span(log_p).subspan(first, kRatings)));
  }
  return ratings;
}

}  // namespace

Rating RatingOf(std::span<const double> log_p) {
  if (log_p.size() != static_cast<std::size_t>(kRatings)) {
    throw std::logic_error("RatingOf: " + std::to_string(log_p.size()) + " ratings");
  }
  const double largest = *std::max_element(log_p.begin(), log_p.end());
  double mass = 0.0, sum = 0.0, incoherent = 0.0;
  for (int s = 1; s <= kRatings; ++s) {
    const double p = std::exp(log_p[static_cast<std::size_t>(s - 1)] - largest);
    mass += p;
    sum += s * p;
    if (s < kCoherentFrom) incoherent += p;
  }
  return {sum / mass, incoherent / mass};
}

RatingCorpus::RatingCorpus(data::Corpus corpus) : corpus_(std::move(corpus)) {
  for (std::int64_t g = 0; g < corpus_.Info().groups; ++g) {
    const data::Group group = corpus_.Read(g);
    if (group.responses.size() != static_cast<std::size_t>(kRatings)) {
      throw data::DataError(corpus_.Path().string() + ": group '" + group.id + "' has " +
                            std::to_string(group.responses.size()) + " responses, a rating corpus has the " +
                            std::to_string(kRatings) +
                            " ratings; prepare it with --format dialogue --template coherence-rating");
    }
    group_.emplace(group.id, g);
  }
}

data::Group RatingCorpus::Question(const std::string& prompt_id) {
  const auto found = group_.find(prompt_id);
  if (found == group_.end()) {
    throw data::DataError(corpus_.Path().string() + ": has no question for the prompt '" + prompt_id +
                          "'; prepare it from the same records, so that ids agree");
  }
  return corpus_.Read(found->second);
}

std::vector<Rating> RateResponses(const Decoder& base, const data::Group& question,
                                  const std::vector<std::vector<data::Token>>& responses) {
  return RateSequences(base, JudgedSequences(base.Config(), question, responses));
}

void Rerank(const Decoder& base, const data::Group& question, std::int64_t keep, GeneratedPrompt& prompt) {
  const auto wanted = static_cast<std::size_t>(keep);
  if (prompt.responses.size() < wanted) {
    throw data::DataError("prompt '" + question.id + "': " + std::to_string(prompt.responses.size()) +
                          " candidates, fewer than the " + std::to_string(keep) + " that --rerank keeps");
  }
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::vector<data::Token>> tokens;
  for (const GeneratedResponse& response : prompt.responses) tokens.push_back(response.tokens);
  const data::LabelledGroup sequences = JudgedSequences(base.Config(), question, tokens);
  const std::vector<Rating> ratings = RateSequences(base, sequences);
  ++prompt.decode_steps;
  prompt.token_forwards += data::BuildTree(sequences.sequences).Rows();
  for (std::size_t i = 0; i < ratings.size(); ++i) prompt.responses[i].rating = ratings[i].expected;
  std::stable_sort(
      prompt.responses.begin(), prompt.responses.end(),
      [](const GeneratedResponse& a, const GeneratedResponse& b) { return *a.rating > *b.rating; });
  prompt.responses.resize(wanted);
  prompt.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace plural::trainer
