#include "trainer/generate/answerer.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include "trainer/generate/list_prompting.h"

namespace plural::trainer {
namespace {

class Sampling : public Answerer {
 public:
  Sampling(const Decoder& model, const GenerateSettings& settings, std::int64_t rows)
      : settings_(settings), rows_(rows), generator_(model, rows) {}

  std::int64_t PromptsAtOnce() const override {
    // Rows that end make room for the next prompt: several times what is decoded at once, so that they are
    // seldom left empty at its end.
    constexpr std::int64_t kRefills = 8;
    return std::max<std::int64_t>(1, kRefills * rows_ / settings_.responses);
  }
  void Ask(std::vector<data::Group> prompts) override {
    for (const data::Group& prompt : prompts) generator_.Add(prompt, settings_);
  }
  // Tickets are counted from 0 in the order of asking.
  std::vector<GeneratedPrompt> Next(const StopSignal& stop) override {
    std::vector<GeneratedPrompt> ready;
    while (ready.empty() && !generator_.Idle() && !stop.Requested()) {
      for (Generator::Finished& finished : generator_.Step()) {
        early_.emplace(finished.ticket, std::move(finished.prompt));
      }
      for (; !early_.empty() && early_.begin()->first == next_; ++next_) {
        ready.push_back(std::move(early_.extract(early_.begin()).mapped()));
      }
    }
    return ready;
  }

 private:
  const GenerateSettings settings_;
  const std::int64_t rows_;
  Generator generator_;
  std::map<std::int64_t, GeneratedPrompt> early_;  // by ticket: done before one that was asked earlier
  std::int64_t next_ = 0;                          // ticket of the next answer
};

// Ways that answer all prompts of a call together.
class Together : public Answerer {
 public:
  void Ask(std::vector<data::Group> prompts) override {
    std::move(prompts.begin(), prompts.end(), std::back_inserter(asked_));
  }
  std::vector<GeneratedPrompt> Next(const StopSignal& stop) override {
    if (asked_.empty() || stop.Requested()) return {};
    std::vector<GeneratedPrompt> answers = Answer(asked_, stop);
    asked_.clear();
    return answers;
  }

 private:
  virtual std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts,
                                              const StopSignal& stop) = 0;

  std::vector<data::Group> asked_;
};

class DiverseBeams : public Together {
 public:
  DiverseBeams(const Decoder& model, const DiverseBeamSettings& beams, std::int64_t responses,
               std::int64_t rows)
      : model_(model), beams_(beams), responses_(responses), rows_(rows) {}

  std::int64_t PromptsAtOnce() const override { return std::max<std::int64_t>(1, rows_ / beams_.beams); }

 private:
  std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts,
                                      const StopSignal& stop) override {
    std::vector<GeneratedPrompt> answers = GenerateDiverseBeams(model_, prompts, beams_, &stop);
    for (GeneratedPrompt& answer : answers) answer.responses.resize(static_cast<std::size_t>(responses_));
    return answers;
  }

  const Decoder& model_;
  const DiverseBeamSettings beams_;
  const std::int64_t responses_, rows_;
};

class ListPrompting : public Together {
 public:
  ListPrompting(const Decoder& model, const data::Corpus& corpus, const GenerateSettings& settings,
                std::int64_t rows)
      : model_(model), corpus_(corpus), settings_(settings), rows_(rows) {}

  std::int64_t PromptsAtOnce() const override { return rows_; }

 private:
  std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts,
                                      const StopSignal& stop) override {
    return GenerateLists(model_, corpus_, prompts, settings_, &stop);
  }

  const Decoder& model_;
  const data::Corpus& corpus_;
  const GenerateSettings settings_;
  const std::int64_t rows_;
};

class Reranking : public Answerer {
 public:
  Reranking(std::unique_ptr<Answerer> candidates, Decoder base, RatingCorpus ratings, std::int64_t keep)
      : candidates_(std::move(candidates)),
        base_(std::move(base)),
        ratings_(std::move(ratings)),
        keep_(keep) {}

  std::int64_t PromptsAtOnce() const override { return candidates_->PromptsAtOnce(); }
  void Ask(std::vector<data::Group> prompts) override {
    for (const data::Group& prompt : prompts) ids_.push_back(prompt.id);
    candidates_->Ask(std::move(prompts));
  }
  std::vector<GeneratedPrompt> Next(const StopSignal& stop) override {
    std::vector<GeneratedPrompt> answers = candidates_->Next(stop);
    for (GeneratedPrompt& answer : answers) {
      Rerank(base_, ratings_.Question(ids_.front()), keep_, answer);
      ids_.pop_front();
    }
    return answers;
  }

 private:
  std::unique_ptr<Answerer> candidates_;
  const Decoder base_;
  RatingCorpus ratings_;
  const std::int64_t keep_;
  std::deque<std::string> ids_;  // of prompts not answered yet
};

}  // namespace

std::unique_ptr<Answerer> MakeSampling(const Decoder& model, const GenerateSettings& settings,
                                       std::int64_t rows) {
  return std::make_unique<Sampling>(model, settings, rows);
}

std::unique_ptr<Answerer> MakeDiverseBeams(const Decoder& model, const DiverseBeamSettings& beams,
                                           std::int64_t responses, std::int64_t rows) {
  return std::make_unique<DiverseBeams>(model, beams, responses, rows);
}

std::unique_ptr<Answerer> MakeListPrompting(const Decoder& model, const data::Corpus& corpus,
                                            const GenerateSettings& settings, std::int64_t rows) {
  return std::make_unique<ListPrompting>(model, corpus, settings, rows);
}

std::unique_ptr<Answerer> MakeReranking(std::unique_ptr<Answerer> candidates, Decoder base,
                                        RatingCorpus ratings, std::int64_t keep) {
  return std::make_unique<Reranking>(std::move(candidates), std::move(base), std::move(ratings), keep);
}

}  // namespace plural::trainer
