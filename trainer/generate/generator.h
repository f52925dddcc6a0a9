// The generator: responses to prompts.
//
// Owns: which draw a token takes, when a response ends, how responses of several prompts share decode steps.
// Does not own: the cache, where tokens are drawn (row_sampler.h), which numbers are asked for (choices.h),
// files, ranks. Thread rule: one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/base/signals.h"
#include "trainer/generate/choices.h"
#include "trainer/generate/key_value_cache.h"
#include "trainer/generate/row_sampler.h"
#include "trainer/generate/sampler.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

struct GenerateSettings {
  std::int64_t responses = 5;  // with latents kAll and kGiven: one a latent instead
  std::int64_t max_new_tokens = 64;
  SamplingSettings sampling{};
  PossibilityPolicy policy = PossibilityPolicy::kNone;
  std::vector<int> possibilities{};  // kGiven
  std::uint64_t seed = 42;
  std::int64_t min_new_tokens = 0;  // no response ends before it has so many
  LatentPolicy latent_policy = LatentPolicy::kNone;
  std::vector<int> latents{};  // kGiven
};

struct GeneratedResponse {
  std::int64_t index = 0;
  int possibility = 0;        // 0: none
  std::optional<int> tail{};  // which tail of the prompt was read, where it is not that of `possibility`
  int latent = 0;             // 0: none, else 1..K
  std::vector<data::Token> tokens;    // without the end-of-sequence token
  std::optional<std::string> text{};  // where `tokens` do not spell it
  double logprob = 0.0;               // nats, of the model's own distribution, end-of-sequence token included
  bool finished = false;              // false: cut at max_new_tokens
  std::int64_t steps = 0;             // decode steps it took part in
  double seconds = 0.0;               // from the start of its prompt's prefill to its own end
  std::optional<double> score{};      // of methods that search: what the responses are ordered by
  std::optional<double> rating{};     // expected rating 1..10 where responses were rated
};

// What a prompt got, and what it cost.
struct GeneratedPrompt {
  std::vector<GeneratedResponse> responses;
  std::int64_t decode_steps = 0;    // of its longest response: as many as follow one another
  std::int64_t token_forwards = 0;  // tokens run through the model for it, prefill included
  double seconds = 0.0;
  std::optional<std::int64_t> short_by{};  // of methods that may fall short: responses missing
};

// Decodes responses of many prompts side by side. Responses of a prompt that have the same history so far
// have the same logits: one row is decoded for all of them, and splits where their draws differ. Rows that
// end make room for the next prompt at once.
class Generator {
 public:
  // At most `rows` different histories are decoded side by side. `model` must outlive the generator. On a GPU
  // a step sends it one copy and waits for one; `kernels`: those of the model's device, tests give others.
  Generator(const Decoder& model, std::int64_t rows);
  Generator(const Decoder& model, std::int64_t rows, const CudaKernels* kernels);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  // Puts a prompt at the end of the queue; returns its ticket. Errors: those of Choose (choices.h).
  std::int64_t Add(const data::Group& prompt, const GenerateSettings& settings);

  // Nothing is queued or under way.
  bool Idle() const;
  // Whether rows are free for another prompt.
  bool HasRoom() const;

  struct Finished {
    std::int64_t ticket = 0;
    GeneratedPrompt prompt;
  };
  // Starts queued prompts while rows are free, decodes one token of each row, and returns the prompts that
  // this completed. Errors: ExitError(kDiverged) for logits that are not finite.
  std::vector<Finished> Step();

 private:
  struct Open;    // a prompt that is being answered
  struct Branch;  // a history and the responses that share it; stands at the cache row of the same index

  void StartPrompt(std::unique_ptr<Open> open);
  void DecodeRows(std::size_t rows);
  std::vector<RowToDraw> DrawsOf(std::size_t first, std::size_t rows) const;
  void Expand(std::size_t first, const std::vector<DrawnRow>& drawn);
  void Append(const Branch& branch, const DrawnRow& drawn, std::vector<Branch>& children);
  void Close(Open& open, std::size_t response);

  const Decoder& model_;
  const std::int64_t rows_;
  const std::vector<data::Token> ends_;  // end-of-sequence tokens
  KeyValueCache cache_;
  std::deque<std::unique_ptr<Open>> queue_;
  std::map<std::int64_t, std::unique_ptr<Open>> open_;  // by ticket
  std::vector<Branch> branches_;
  std::vector<Finished> finished_;
  RowSampler sampler_;
  std::int64_t next_ticket_ = 0;
};

inline constexpr std::int64_t kDefaultRows = 64;

// The responses to each prompt, in order. A pure function of (model, prompts, settings): draws are
// keyed by (seed, prompt id, response index, token index), so neither ranks nor `rows` change them.
// Empty when `stop` is requested before all are done. Errors: those of Generator.
std::vector<GeneratedPrompt> Generate(const Decoder& model, const std::vector<data::Group>& prompts,
                                      const GenerateSettings& settings, std::int64_t rows = kDefaultRows,
                                      const StopSignal* stop = nullptr);

}  // namespace plural::trainer
