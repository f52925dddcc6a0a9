// A row of logits whose tokens a block draws: what is asked of it, and where the block keeps what.
//
// Owns: the layout of shared memory. Does not own: the draws (sample_rows.h, row_choice.h). Thread rule:
// values.
#pragma once

#include "trainer/kernels/cuda/host_exponential.h"
#include "trainer/kernels/cuda/sample_rows_module.h"

namespace plural::trainer::gpu {

struct SampleLayout {
  static constexpr int kThreads = 512;
  static constexpr int kWarps = kThreads / 32, kLanes = 16, kGroups = kThreads / kLanes;
  static constexpr int kWeightBlock = 256, kSumBlock = 1024;  // of sampler.cc; of host::LseOfRow
  static constexpr int kMaxima = 2 * kThreads, kFirstTopP = 64;
  static constexpr int kCandidates = static_cast<int>(kSampledCandidates);
  // Shared memory. What stays: sums of weights, results of the whole block.
  static constexpr int kBlockSums = 0;
  static constexpr int kLogSum = kBlockSums + 8 * static_cast<int>(kSampledVocabulary / kWeightBlock);
  static constexpr int kMass = kLogSum + 8, kKept = kMass + 8, kTop = kKept + 4, kAllowedTop = kTop + 4,
                       kColumn = kAllowedTop + 4, kWork = kColumn + 4;
  static_assert(kWork % 16 == 0);
  // What does not: the largest logits of threads;
  static constexpr int kTops = kWork, kAllowedTops = kTops + 4 * kThreads,
                       kColumns = kAllowedTops + 4 * kThreads;
  // sums of lanes;
  static constexpr int kLaneSums = kWork, kLaneWeights = kLaneSums + 4 * kThreads,
                       kGroupSums = kLaneWeights + 4 * kThreads * (kSumBlock / kWeightBlock);
  // of a warp's draw: where its block begins in the cumulative sum, what it must pass, its weights;
  static constexpr int kBefore = kWork, kThreshold = kBefore + 8 * kWarps, kChosen = kThreshold + 8 * kWarps,
                       kWeights = kChosen + 4 * kWarps;
  // the tokens to choose from, and how many of each thread.
  static constexpr int kNumbers = kWork, kIndices = kNumbers + 8 * kCandidates,
                       kCounts = kIndices + 4 * kCandidates;
  static constexpr int kBytes = kCounts + 4 * kThreads;
  static_assert(kBytes >= kWeights + 4 * kWarps * kWeightBlock);
  static_assert(kBytes >= kGroupSums + 8 * kGroups);
};

struct SampleRegisters {
  float top, largest[2];  // of all logits; of those that may be drawn, of two parts
  int column, count, before;
  double sum;
};

struct SampledRow {
  RowOfDraws asked;
  float inverse_temperature;
  const float* z;
  int count, excluded_count;
  const std::int32_t* excluded;
  const double* uniform;
  DrawnOnDevice* drawn;

  PLURAL_DEVICE SampledRow(const SampleRowsArguments& a, int number)
      : asked(a.row[number]),
        inverse_temperature(static_cast<float>(1.0 / asked.temperature)),
        z(a.z + number * a.count),
        count(static_cast<int>(a.count)),
        excluded_count(asked.excludes != 0 ? static_cast<int>(a.excluded_count) : 0),
        excluded(a.excluded),
        uniform(a.uniform + asked.first),
        drawn(a.drawn + asked.first) {}

  // The logit of a token, as far as it may be drawn.
  PLURAL_DEVICE float At(int token) const {
    for (int i = 0; i < excluded_count; ++i) {
      if (excluded[i] == token) return MinusInfinity();
    }
    return z[token];
  }
  PLURAL_DEVICE float Weight(int token, float top) const {
    return HostExponential(Product(Plus(At(token), -top), inverse_temperature));
  }
};

}  // namespace plural::trainer::gpu
