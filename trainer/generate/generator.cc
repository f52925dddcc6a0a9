#include "trainer/generate/generator.h"

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <utility>

#include "data/random.h"
#include "trainer/base/error.h"
#include "trainer/model/latents.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kFirstSlots = 1024;  // tokens that the cache has room for before it grows

}  // namespace

struct Generator::Open {
  std::int64_t ticket = 0;
  data::Group prompt;
  GenerateSettings settings;
  Choices choices;
  std::vector<std::uint64_t> keys;  // of each response's draws
  GeneratedPrompt result;
  std::size_t unfinished = 0;  // responses
  Clock::time_point start;
};

struct Generator::Branch {
  Open* open = nullptr;
  std::vector<std::size_t> responses;
  data::Token token = 0;  // fed next,
  int latent = 0;         // or this one's embedding
};

Generator::Generator(const Decoder& model, std::int64_t rows)
    : model_(model),
      rows_(rows),
      ends_(model.Config().eos_token_ids.begin(), model.Config().eos_token_ids.end()),
      cache_(model, 0, kFirstSlots) {}

Generator::~Generator() = default;

bool Generator::Idle() const { return queue_.empty() && branches_.empty(); }

bool Generator::HasRoom() const {
  return queue_.empty() && static_cast<std::int64_t>(branches_.size()) < rows_;
}

std::int64_t Generator::Add(const data::Group& prompt, const GenerateSettings& settings) {
  auto open = std::make_unique<Open>();
  open->choices = Choose(prompt, settings, model_);
  open->ticket = next_ticket_++;
  open->prompt.index = prompt.index;
  open->prompt.id = prompt.id;
  open->prompt.prompt_tokens = prompt.prompt_tokens;
  open->prompt.tails = prompt.tails;
  open->settings = settings;
  open->unfinished = static_cast<std::size_t>(open->choices.Responses());
  for (std::size_t i = 0; i < open->unfinished; ++i) {
    GeneratedResponse response;
    response.index = static_cast<std::int64_t>(i);
    response.possibility = open->choices.possibilities[i];
    response.latent = open->choices.latents[i];
    open->result.responses.push_back(std::move(response));
    open->keys.push_back(data::MixKey(settings.seed, data::Purpose::kSampling, data::HashName(prompt.id), i));
  }
  queue_.push_back(std::move(open));
  return queue_.back()->ticket;
}

std::vector<Generator::Finished> Generator::Step() {
  const c10::NoGradGuard no_grad;
  while (!queue_.empty() && static_cast<std::int64_t>(branches_.size()) < rows_) {
    std::unique_ptr<Open> next = std::move(queue_.front());
    queue_.pop_front();
    StartPrompt(std::move(next));
  }
  // Branches behind the first `rows_` wait until some of these end.
  const std::size_t rows = std::min(branches_.size(), static_cast<std::size_t>(rows_));
  if (rows > 0) Expand(0, Feed(rows));
  for (const Finished& finished : finished_) open_.erase(finished.ticket);
  return std::exchange(finished_, {});
}

// Prompt and tails run as one tree; responses with the same tail begin as one branch.
void Generator::StartPrompt(std::unique_ptr<Open> open_prompt) {
  Open& open = *open_prompt;
  open_.emplace(open.ticket, std::move(open_prompt));
  open.start = Clock::now();
  std::map<std::pair<int, int>, std::vector<std::size_t>> by_start;  // (number, latent) -> responses
  for (std::size_t i = 0; i < open.unfinished; ++i) {
    by_start[{open.choices.possibilities[i], open.choices.latents[i]}].push_back(i);
  }
  std::vector<int> numbers;
  for (const auto& [start, responses] : by_start) numbers.push_back(start.first);
  const Prefill prefill = RunPrefill(model_, open.prompt, numbers);
  open.result.token_forwards = prefill.k_NGD.front().size(0);

  const std::size_t first = branches_.size();
  for (auto& [start, responses] : by_start) {
    cache_.Start(static_cast<std::int64_t>(branches_.size()), prefill, branches_.size() - first);
    branches_.push_back({.open = &open, .responses = std::move(responses), .latent = start.second});
  }
  // A latent stands between the prompt and the first token, so there is nothing to draw yet.
  if (open.settings.latent_policy == LatentPolicy::kNone) Expand(first, prefill.logits_LV);
}

// Feeds the first `rows` branches; returns their logits.
at::Tensor Generator::Feed(std::size_t rows) {
  std::vector<std::int64_t> tokens, latent_rows, latents;
  for (std::size_t r = 0; r < rows; ++r) {
    const Branch& branch = branches_[r];
    tokens.push_back(branch.token);
    if (branch.latent > 0) {
      latent_rows.push_back(static_cast<std::int64_t>(r));
      latents.push_back(branch.latent - 1);
    }
    GeneratedPrompt& result = branch.open->result;
    ++result.token_forwards;
    for (const std::size_t index : branch.responses) {
      result.decode_steps = std::max(result.decode_steps, ++result.responses[index].steps);
    }
  }
  const auto indices = [&](const std::vector<std::int64_t>& values) {
    return ToDevice(values, at::kLong, model_.Device());
  };
  at::Tensor embedding_RE = model_.Embed(indices(tokens));
  if (!latents.empty()) {
    embedding_RE.index_copy_(
        0, indices(latent_rows),
        model_.LatentHeads()->table_KE.index_select(0, indices(latents)).to(embedding_RE.dtype()));
  }
  return cache_.StepEmbeddings(model_, embedding_RE);
}

// Lets the responses of the branches from `first` on draw their next token from the branch's logits; a
// branch becomes as many as there are different tokens. Branches behind those with logits stay.
void Generator::Expand(std::size_t first, const at::Tensor& logits_RV) {
  const bool exact = logits_RV.scalar_type() == at::kDouble;
  const at::Tensor host_RV = logits_RV.to(at::kCPU, exact ? at::kDouble : at::kFloat).contiguous();
  std::vector<Branch> branches;
  std::vector<std::int64_t> rows;
  for (std::size_t r = 0; r < branches_.size(); ++r) {
    const std::int64_t row = static_cast<std::int64_t>(r) - static_cast<std::int64_t>(first);
    if (row < 0 || row >= host_RV.size(0)) {
      branches.push_back(std::move(branches_[r]));
    } else if (exact) {
      Draw(branches_[r], host_RV[row], double_sampler_, branches);
    } else {
      Draw(branches_[r], host_RV[row], float_sampler_, branches);
    }
    rows.resize(branches.size(), static_cast<std::int64_t>(r));
  }
  branches_ = std::move(branches);
  cache_.Keep(rows);
}

template <typename Real>
void Generator::Draw(const Branch& branch, const at::Tensor& logits_V, TokenSampler<Real>& sampler,
                     std::vector<Branch>& children) {
  Open& open = *branch.open;
  const GenerateSettings& settings = open.settings;
  const std::size_t tokens = open.result.responses[branch.responses.front()].tokens.size();
  const bool may_end = static_cast<std::int64_t>(tokens) >= settings.min_new_tokens;
  sampler.Read({logits_V.const_data_ptr<Real>(), static_cast<std::size_t>(logits_V.size(0))},
               settings.sampling, may_end ? std::span<const data::Token>() : ends_);
  if (!std::isfinite(sampler.LogSum())) {
    throw ExitError(ExitCode::kDiverged, "prompt '" + open.prompt.id +
                                             "': the model's logits are not finite; its weights or its "
                                             "adapter are damaged or diverged");
  }
  std::map<data::Token, std::vector<std::size_t>> by_token;
  for (const std::size_t index : branch.responses) {
    GeneratedResponse& response = open.result.responses[index];
    // Draw number `tokens` of the response's own stream, whatever else is decoded beside it.
    data::CounterRandom random{open.keys[index], tokens};
    const data::Token token = sampler.Draw(random.Uniform());
    response.logprob += sampler.LogProbability(token);
    response.finished = std::find(ends_.begin(), ends_.end(), token) != ends_.end();
    if (!response.finished) response.tokens.push_back(token);
    if (response.finished || static_cast<std::int64_t>(response.tokens.size()) == settings.max_new_tokens) {
      Close(open, index);
    } else {
      by_token[token].push_back(index);
    }
  }
  for (auto& [token, responses] : by_token) {
    children.push_back({.open = &open, .responses = std::move(responses), .token = token});
  }
}

void Generator::Close(Open& open, std::size_t response) {
  const double seconds = std::chrono::duration<double>(Clock::now() - open.start).count();
  open.result.responses[response].seconds = open.result.seconds = seconds;
  if (--open.unfinished > 0) return;
  finished_.push_back({open.ticket, std::move(open.result)});
}

std::vector<GeneratedPrompt> Generate(const Decoder& model, const std::vector<data::Group>& prompts,
                                      const GenerateSettings& settings, std::int64_t rows,
                                      const StopSignal* stop) {
  std::vector<GeneratedPrompt> results(prompts.size());
  if (settings.responses == 0) return results;
  Generator generator(model, rows);
  for (const data::Group& prompt : prompts) generator.Add(prompt, settings);
  while (!generator.Idle()) {
    if (stop != nullptr && stop->Requested()) return {};
    for (Generator::Finished& finished : generator.Step()) {
      results[static_cast<std::size_t>(finished.ticket)] = std::move(finished.prompt);
    }
  }
  return results;
}

}  // namespace plural::trainer
