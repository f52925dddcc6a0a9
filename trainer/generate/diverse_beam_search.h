// Diverse beam search: several groups of beams, each kept from repeating what earlier groups just chose.
//
// Owns: the search (which beams live, what a token costs, when a hypothesis and a group are closed), and its
// driver over the model, one prefill per prompt. Does not own: the cache, files, ranks. Thread rule: one
// thread.
//
// The rules are those of Hugging Face transformers since release 4.36 (docs/methods.md 9.4): the penalty
// stays in a hypothesis's score, and the score is the sum divided by the number of generated tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/group.h"
#include "trainer/generate/generator.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

struct DiverseBeamSettings {
  std::int64_t beams = 5;   // of all groups
  std::int64_t groups = 5;  // divides beams
  double diversity_penalty = 5.0;
  std::int64_t max_new_tokens = 64;
};

struct BeamHypothesis {
  std::vector<data::Token> tokens;  // without the end-of-sequence token
  bool finished = false;            // it ended with one
  double score = 0.0;               // (log p - penalties) / generated tokens, that of the end included
  double logprob = 0.0;             // nats, of the model's own distribution
  std::int64_t group = 0;
};

// The search of one prompt, told the model's log-probabilities step by step.
class DiverseBeamSearch {
 public:
  // `padding`: the token that beams of a closed group "choose" at every further step; later groups are
  // penalised for it, as in transformers, whose closed groups go on with padding. -1: none.
  DiverseBeamSearch(const DiverseBeamSettings& settings, std::vector<std::int64_t> end_tokens,
                    data::Token padding);

  // What each open beam goes on from, and with which token.
  struct Next {
    std::vector<std::int64_t> row;  // of the log-probabilities just given
    std::vector<data::Token> token;
  };
  // log_p: [rows, vocabulary] nats, row-major; the rows are those of the last answer, in its order, and at
  // first one row for the prompt. An answer without rows means that the search is over.
  Next Advance(std::span<const double> log_p, std::int64_t vocabulary);

  // All hypotheses of a search that is over, best score first; of equal scores the later group's first.
  std::vector<BeamHypothesis> Hypotheses() const;

 private:
  struct Beam {
    std::vector<data::Token> tokens;
    double sum = 0.0;      // penalties included
    double logprob = 0.0;  // without
    std::int64_t row = 0;
  };
  struct Group {
    std::vector<Beam> beams;
    std::vector<BeamHypothesis> closed;  // at most as many as beams, in the order of closing
    double worst = 1e9;                  // their lowest score
    bool done = false;
  };
  struct Candidate {
    double sum;
    std::int64_t beam, token;
  };

  std::vector<Candidate> BestCandidates(const Group& group, std::span<const double> log_p,
                                        std::int64_t vocabulary,
                                        const std::vector<std::int64_t>& chosen) const;
  void AdvanceGroup(std::size_t g, std::span<const double> log_p, std::int64_t vocabulary,
                    const std::vector<std::int64_t>& chosen);
  void Close(std::size_t g, const Beam& beam, bool finished, std::int64_t generated);
  bool IsEnd(std::int64_t token) const;

  DiverseBeamSettings settings_;
  std::vector<std::int64_t> end_tokens_;
  data::Token padding_;
  std::vector<Group> groups_;
  std::int64_t generated_ = 0;  // tokens
};

// `settings.beams` responses to each prompt (its tail 0), best score first. Prompts share decode steps; no
// answer depends on which. Empty when `stop` is requested before all are done. Errors: DataError naming the
// prompt that does not fit the model's context.
std::vector<GeneratedPrompt> GenerateDiverseBeams(const Decoder& model,
                                                  const std::vector<data::Group>& prompts,
                                                  const DiverseBeamSettings& settings,
                                                  const StopSignal* stop = nullptr);

}  // namespace plural::trainer
