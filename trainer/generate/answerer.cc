#include "trainer/generate/answerer.h"

#include <algorithm>
#include <utility>

#include "trainer/generate/list_prompting.h"

namespace plural::trainer {
namespace {

class Sampling : public Answerer {
 public:
  Sampling(const Decoder& model, const GenerateSettings& settings, std::int64_t rows)
      : model_(model), settings_(settings), rows_(rows) {}

  std::int64_t PromptsPerCall() const override {
    // Rows that end make room for the next prompt of the call: several times what is decoded at once, so that
    // they are seldom left empty at its end.
    constexpr std::int64_t kRefills = 8;
    return std::max<std::int64_t>(1, kRefills * rows_ / settings_.responses);
  }
  std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts) override {
    return Generate(model_, prompts, settings_, rows_);
  }

 private:
  const Decoder& model_;
  const GenerateSettings settings_;
  const std::int64_t rows_;
};

class DiverseBeams : public Answerer {
 public:
  DiverseBeams(const Decoder& model, const DiverseBeamSettings& beams, std::int64_t responses,
               std::int64_t rows)
      : model_(model), beams_(beams), responses_(responses), rows_(rows) {}

  std::int64_t PromptsPerCall() const override { return std::max<std::int64_t>(1, rows_ / beams_.beams); }
  std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts) override {
    std::vector<GeneratedPrompt> answers = GenerateDiverseBeams(model_, prompts, beams_);
    for (GeneratedPrompt& answer : answers) answer.responses.resize(static_cast<std::size_t>(responses_));
    return answers;
  }

 private:
  const Decoder& model_;
  const DiverseBeamSettings beams_;
  const std::int64_t responses_, rows_;
};

class ListPrompting : public Answerer {
 public:
  ListPrompting(const Decoder& model, const data::Corpus& corpus, const GenerateSettings& settings,
                std::int64_t rows)
      : model_(model), corpus_(corpus), settings_(settings), rows_(rows) {}

  std::int64_t PromptsPerCall() const override { return rows_; }
  std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts) override {
    return GenerateLists(model_, corpus_, prompts, settings_);
  }

 private:
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

  std::int64_t PromptsPerCall() const override { return candidates_->PromptsPerCall(); }
  std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts) override {
    std::vector<GeneratedPrompt> answers = candidates_->Answer(prompts);
    for (std::size_t p = 0; p < answers.size(); ++p) {
      Rerank(base_, ratings_.Question(prompts[p].id), keep_, answers[p]);
    }
    return answers;
  }

 private:
  std::unique_ptr<Answerer> candidates_;
  const Decoder base_;
  RatingCorpus ratings_;
  const std::int64_t keep_;
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
