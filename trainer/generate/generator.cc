#include "trainer/generate/generator.h"

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "data/random.h"
#include "trainer/base/error.h"
#include "trainer/model/latents.h"

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
    : Generator(model, rows, KernelsOf(model.Device())) {}

Generator::Generator(const Decoder& model, std::int64_t rows, const CudaKernels* kernels)
    : model_(model),
      rows_(rows),
      ends_(model.Config().eos_token_ids.begin(), model.Config().eos_token_ids.end()),
      cache_(model, 0, kFirstSlots, kernels),
      sampler_(ends_, kernels) {}

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
  if (rows > 0) DecodeRows(rows);
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
  if (open.settings.latent_policy != LatentPolicy::kNone) return;
  const std::vector<RowToDraw> draws = DrawsOf(first, branches_.size() - first);
  PackedUpload upload;
  sampler_.Prepare(draws, upload);
  upload.Send(model_.Device());
  Expand(first, sampler_.Draw(draws, prefill.logits_LV, upload));
}

// Feeds the first `rows` branches and draws what follows. All that the device must know goes in one copy.
void Generator::DecodeRows(std::size_t rows) {
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
  const std::vector<RowToDraw> draws = DrawsOf(0, rows);
  PackedUpload upload;
  const auto token = upload.Add(tokens), latent_row = upload.Add(latent_rows), latent = upload.Add(latents);
  const auto attention = cache_.MakeRoom(static_cast<std::int64_t>(rows), upload);
  sampler_.Prepare(draws, upload);
  upload.Send(model_.Device());

  at::Tensor embedding_RE = model_.Embed(upload.Longs(token));
  if (!latents.empty()) {
    const at::Tensor of_latents = model_.LatentHeads()->table_KE.index_select(0, upload.Longs(latent));
    embedding_RE.index_copy_(0, upload.Longs(latent_row), of_latents.to(embedding_RE.dtype()));
  }
  const at::Tensor logits_RV = cache_.StepEmbeddings(model_, embedding_RE, *attention);
  Expand(0, sampler_.Draw(draws, logits_RV, upload));
}

// What the responses of `rows` branches from `first` on ask of their next logits.
std::vector<RowToDraw> Generator::DrawsOf(std::size_t first, std::size_t rows) const {
  std::vector<RowToDraw> draws;
  for (std::size_t r = first; r < first + rows; ++r) {
    const Branch& branch = branches_[r];
    const Open& open = *branch.open;
    const std::size_t tokens = open.result.responses[branch.responses.front()].tokens.size();
    RowToDraw& row = draws.emplace_back();
    row.sampling = open.settings.sampling;
    row.may_end = static_cast<std::int64_t>(tokens) >= open.settings.min_new_tokens;
    for (const std::size_t index : branch.responses) {
      // Draw number `tokens` of the response's own stream, whatever else is decoded beside it.
      row.uniforms.push_back(data::CounterRandom{open.keys[index], tokens}.Uniform());
    }
  }
  return draws;
}

// Gives the responses of the branches from `first` on the tokens they drew; a branch becomes as many as there
// are different ones. Branches behind those with draws stay.
void Generator::Expand(std::size_t first, const std::vector<DrawnRow>& drawn) {
  std::vector<Branch> branches;
  std::vector<std::int64_t> rows;
  for (std::size_t r = 0; r < branches_.size(); ++r) {
    if (r < first || r >= first + drawn.size()) {
      branches.push_back(std::move(branches_[r]));
    } else {
      Append(branches_[r], drawn[r - first], branches);
    }
    rows.resize(branches.size(), static_cast<std::int64_t>(r));
  }
  branches_ = std::move(branches);
  cache_.Keep(rows);
}

void Generator::Append(const Branch& branch, const DrawnRow& drawn, std::vector<Branch>& children) {
  Open& open = *branch.open;
  if (!std::isfinite(drawn.log_sum)) {
    throw ExitError(ExitCode::kDiverged, "prompt '" + open.prompt.id +
                                             "': the model's logits are not finite; its weights or its "
                                             "adapter are damaged or diverged");
  }
  std::map<data::Token, std::vector<std::size_t>> by_token;
  for (std::size_t draw = 0; draw < branch.responses.size(); ++draw) {
    const std::size_t index = branch.responses[draw];
    GeneratedResponse& response = open.result.responses[index];
    const data::Token token = drawn.tokens[draw];
    response.logprob += drawn.logprobs[draw];
    response.finished = std::find(ends_.begin(), ends_.end(), token) != ends_.end();
    if (!response.finished) response.tokens.push_back(token);
    if (response.finished ||
        static_cast<std::int64_t>(response.tokens.size()) == open.settings.max_new_tokens) {
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
