// CPU seconds and memory of one group's forward and backward on the 56 M parameter Mistral shape, one thread.
//
//     group_step peft|targets [groups] [prompt tokens]
//
// Random weights and tokens; lengths as in real data: peft has 4 numbers and 4 responses of 22 tokens after
// a prompt of 200, targets has 100 targets of 5 tokens after a prompt of 60. Prints one JSON line.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include "data/random.h"
#include "data/rows.h"
#include "trainer/method/objective.h"

using namespace plural;  // NOLINT: a program of one file

namespace {

trainer::ModelConfig Mistral56M() {
  trainer::ModelConfig config;
  config.vocab_size = 32000;
  config.hidden_size = 512;
  config.intermediate_size = 1376;
  config.num_hidden_layers = 8;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 64;
  config.rms_norm_eps = 1e-6;
  return config;
}

std::vector<data::Token> Tokens(data::CounterRandom& random, std::int64_t count) {
  std::vector<data::Token> tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<data::Token>(random.Below(32000)));
  return tokens;
}

data::LabelledGroup MakeGroup(bool peft, std::int64_t prompt_tokens, std::uint64_t key) {
  data::CounterRandom random{data::Mix64(key)};
  data::LabelledGroup group;
  const auto prompt = Tokens(random, prompt_tokens);
  const int tails = peft ? 4 : 1;
  const int responses = peft ? 4 : 100;
  std::vector<std::vector<data::Token>> tail, response;
  for (int t = 0; t < tails; ++t) tail.push_back(Tokens(random, peft ? 6 : 1));
  for (int r = 0; r < responses; ++r) response.push_back(Tokens(random, peft ? 22 : 5));
  for (int t = 0; t < tails; ++t) {
    for (int r = 0; r < responses; ++r) {
      data::LabelledSequence sequence;
      sequence.prefix = prompt;
      sequence.prefix.insert(sequence.prefix.end(), tail[t].begin(), tail[t].end());
      sequence.response = response[r];
      sequence.positive = !peft || t == r;
      sequence.likelihood.assign(sequence.response.size(), sequence.positive ? 0.01 : 0.0);
      sequence.unlikelihood.assign(sequence.response.size(), sequence.positive ? 0.0 : 0.01);
      group.sequences.push_back(std::move(sequence));
    }
  }
  return group;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc > 1 ? argv[1] : "";
  if (kind != "peft" && kind != "targets") {
    std::fprintf(stderr, "usage: group_step peft|targets [groups] [prompt tokens]\n");
    return 64;
  }
  const bool peft = kind == "peft";
  const int groups = argc > 2 ? std::atoi(argv[2]) : 4;
  const std::int64_t prompt = argc > 3 ? std::atoi(argv[3]) : (peft ? 200 : 60);
  at::set_num_threads(1);

  trainer::Decoder model(Mistral56M(), at::kFloat, at::kCPU);
  model.InitializeRandom(1);
  trainer::AdapterSettings adapter{.rank = peft ? 16 : 4, .targets = {"q_proj", "k_proj", "v_proj"}};
  if (peft) {
    adapter.targets.push_back("lm_head");
  } else {
    adapter.targets.insert(adapter.targets.end(), {"o_proj", "gate_proj", "up_proj", "down_proj"});
  }
  model.AddAdapter(adapter, 2);

  double seconds = 0.0, rows = 0.0, edges = 0.0;
  for (int g = 0; g <= groups; ++g) {  // the first one warms up
    const data::LabelledGroup group = MakeGroup(peft, prompt, static_cast<std::uint64_t>(g));
    const auto passes = data::PackGroups({&group, 1}, {.row_budget = 1 << 20}, 1.0);
    const std::clock_t start = std::clock();  // processor time: other programs do not count
    for (const data::RowPass& pass : passes) {
      trainer::RunPass(model, pass, {}).loss.backward();
      if (g > 0) rows += static_cast<double>(pass.rows);
      if (g > 0) edges += static_cast<double>(pass.edges.size());
    }
    if (g > 0) seconds += static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"kind\": \"%s\", \"groups\": %d, \"cpu_seconds_per_group\": %.4f, \"rows_per_group\": %.1f, "
      "\"edges_per_group\": %.1f, \"peak_rss_gb\": %.3f}\n",
      kind.c_str(), groups, seconds / groups, rows / groups, edges / groups,
      static_cast<double>(usage.ru_maxrss) / (1 << 20));
  return 0;
}
