// Ratings: how well the base model thinks a response fits, read from its own probabilities.
//
// Owns: the expected rating of responses, all in one forward, and which of them are kept. Does not own: the
// wording of the question (the template of a rating corpus), decoding. Thread rule: one thread.
//
// A rating corpus is an ordinary corpus (`plural prepare --template coherence-rating`): a group's prompt is
// the text up to the response's place, its tail 0 the text after it, its ten responses the ratings 1 to 10.
// The judged sequence is prompt, response, tail 0, rating. Nothing is decoded: the likelihoods of the ten
// ratings, renormalised, are the distribution (docs/methods.md 9.6).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "trainer/generate/generator.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

inline constexpr int kRatings = 10;
// Below this a response counts as incoherent.
inline constexpr int kCoherentFrom = 6;

struct Rating {
  double expected = 0.0;         // 1..10
  double incoherent_mass = 0.0;  // P(rating < 6)
  bool operator==(const Rating&) const = default;
};

// From the log-likelihoods (nats) of the ratings 1..10, on any common offset.
Rating RatingOf(std::span<const double> log_p);

// The questions of a rating corpus by the ids of the prompts.
class RatingCorpus {
 public:
  // Takes over `corpus`, reads every id. Errors: DataError naming a group that has not ten ratings.
  explicit RatingCorpus(data::Corpus corpus);
  // Errors: DataError when the corpus has no question for this prompt.
  data::Group Question(const std::string& prompt_id);
  const data::Corpus& Corpus() const { return corpus_; }

 private:
  data::Corpus corpus_;
  std::map<std::string, std::int64_t> group_;
};

// The rating of each response (token ids without end-of-sequence token; may be empty), all as one token tree.
// `base` is the model without its adapter. Equal responses get equal ratings.
// Errors: DataError when a judged sequence exceeds the model's context.
std::vector<Rating> RateResponses(const Decoder& base, const data::Group& question,
                                  const std::vector<std::vector<data::Token>>& responses);

// Rates the prompt's responses and keeps the `keep` best, best first; of equals the smaller index first. Adds
// the forward to the prompt's cost. Errors: DataError when there are fewer, or as RateResponses.
void Rerank(const Decoder& base, const data::Group& question, std::int64_t keep, GeneratedPrompt& prompt);

}  // namespace plural::trainer
