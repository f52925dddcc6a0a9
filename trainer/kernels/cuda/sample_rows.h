// Tokens drawn from rows of logits on a GPU. The kernel's source.
//
// Owns: the work of one block, which has one row and all its draws. Does not own: launches (sample_rows.cu),
// what temperature, top-k and top-p mean (generate/sampler.h), whose order of filters, sums and draws this
// is: equal logits give the tokens that the host draws. Thread rule: all threads of a block call.
//
// Whole-vocabulary sums are taken in the order of the host's loops, by lanes of sixteen (logit_loops.h), with
// its exponential. Of top-k and top-p the tokens to choose from are found as there: the count-th largest of
// the largest logits of disjoint parts bounds them from below, and few lie above. Sums over chosen tokens are
// fp64 and one thread's, in order of id.
#pragma once

#include "trainer/kernels/cuda/row_choice.h"
#include "trainer/kernels/cuda/sampled_row.h"

namespace plural::trainer::gpu {

struct SampleRow : SampleLayout {
  using Registers = SampleRegisters;

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const SampleRowsArguments& a, int number, int) {
    const SampledRow row(a, number);
    Maxima(block, row);
    const float top = block.template Load<float>(0, kTop),
                allowed_top = block.template Load<float>(0, kAllowedTop);
    const bool greedy = row.asked.temperature == 0.0;
    const bool filters_k = row.asked.top_k > 0 && row.asked.top_k < row.count;
    Sums(block, row, top, allowed_top, !greedy && !filters_k);
    if (greedy) {
      const int column = block.template Load<int>(0, kColumn);
      AllDraws(block, row, [&](int, double) { return column; });
    } else if (!filters_k && row.asked.top_p >= 1.0) {
      DrawOfAll(block, row, allowed_top);
    } else {
      const int kept = RowChoice::Choose(block, row, allowed_top, filters_k);
      AllDraws(block, row, [&](int thread, double uniform) {
        return kept > 0 ? RowChoice::DrawOfChosen(block, thread, kept, uniform) : -1;
      });
    }
  }

 private:
  // token(thread, uniform) of every draw becomes a result.
  template <class Block, class Token>
  static PLURAL_DEVICE void AllDraws(Block& block, const SampledRow& row, const Token& token) {
    block.Each([&](int thread, Registers&) {
      for (int draw = thread; draw < row.asked.draws; draw += kThreads)
        Answer(block, thread, row, draw, token(thread, row.uniform[draw]));
    });
  }
  template <class Block>
  static PLURAL_DEVICE void Answer(Block& block, int thread, const SampledRow& row, int draw, int token) {
    const bool found = token >= 0 && token < row.count;  // none where no logit is a number
    row.drawn[draw] = {found ? token : -1, found ? row.z[token] : 0.0F,
                       block.template Load<double>(thread, kLogSum)};
  }

  // The largest logit, the largest that may be drawn and the first token that has it. NaN is passed over.
  template <class Block>
  static PLURAL_DEVICE void Maxima(Block& block, const SampledRow& row) {
    block.Each([&](int thread, Registers& r) {
      r.top = r.largest[0] = r.largest[1] = MinusInfinity();
      r.column = row.count;
      for (int i = thread; i < row.count; i += kThreads) {
        const float all = row.z[i], allowed = row.At(i);
        const float before = r.largest[0] > r.largest[1] ? r.largest[0] : r.largest[1];
        if (all > r.top) r.top = all;
        if (allowed > before || (allowed == before && i < r.column)) r.column = i;
        if (i / kThreads % 2 == 0) {
          if (allowed > r.largest[0]) r.largest[0] = allowed;
        } else if (allowed > r.largest[1]) {
          r.largest[1] = allowed;
        }
      }
      block.Store(thread, kTops + 4 * thread, r.top);
      block.Store(thread, kAllowedTops + 4 * thread,
                  r.largest[0] > r.largest[1] ? r.largest[0] : r.largest[1]);
      block.Store(thread, kColumns + 4 * thread, r.column);
    });
    for (int half = kThreads / 2; half > 0; half /= 2) {
      block.Sync();
      block.Each([&](int thread, Registers&) {
        if (thread >= half) return;
        const auto load = [&](int offset, int of) {
          return block.template Load<float>(thread, offset + 4 * of);
        };
        const float top = load(kTops, thread + half);
        if (top > load(kTops, thread)) block.Store(thread, kTops + 4 * thread, top);
        const float mine = load(kAllowedTops, thread), other = load(kAllowedTops, thread + half);
        const auto column = block.template Load<int>(thread, kColumns + 4 * thread),
                   other_column = block.template Load<int>(thread, kColumns + 4 * (thread + half));
        if (!(other > mine || (other == mine && other_column < column))) return;
        block.Store(thread, kAllowedTops + 4 * thread, other);
        block.Store(thread, kColumns + 4 * thread, other_column);
      });
    }
    block.Each([&](int thread, Registers&) {
      if (thread != 0) return;
      block.Store(thread, kTop, block.template Load<float>(thread, kTops));
      block.Store(thread, kAllowedTop, block.template Load<float>(thread, kAllowedTops));
      block.Store(thread, kColumn, block.template Load<int>(thread, kColumns));
    });
    block.Sync();
  }

  // Log sum exp, as host::LseOfRow; with `weigh` the sums of weights, as host::TemperedWeights.
  template <class Block>
  static PLURAL_DEVICE void Sums(Block& block, const SampledRow& row, float top, float allowed_top,
                                 bool weigh) {
    constexpr int kOfSum = kSumBlock / kWeightBlock;
    block.Each([&](int, Registers& r) { r.sum = 0.0; });
    for (int begin = 0; begin < row.count; begin += kGroups * kSumBlock) {
      block.Each([&](int thread, Registers&) {
        const int group = thread / kLanes, lane = thread % kLanes;
        float sum = 0;
        for (int b = 0; b < kOfSum; ++b) {
          const int first = begin + group * kSumBlock + b * kWeightBlock;
          float weights = 0;
          for (int i = first + lane; i < first + kWeightBlock && i < row.count; i += kLanes) {
            sum += HostExponential(Plus(row.z[i], -top));
            if (weigh) weights += row.Weight(i, allowed_top);
          }
          block.Store(thread, kLaneWeights + 4 * ((group * kOfSum + b) * kLanes + lane), weights);
        }
        block.Store(thread, kLaneSums + 4 * thread, sum);
      });
      block.Sync();
      block.Each([&](int thread, Registers&) {
        const auto sum_lanes = [&](int offset, int of) {
          double sum = 0.0;
          for (int lane = 0; lane < kLanes; ++lane)
            sum += block.template Load<float>(thread, offset + 4 * (of * kLanes + lane));
          return sum;
        };
        if (thread < kGroups) block.Store(thread, kGroupSums + 8 * thread, sum_lanes(kLaneSums, thread));
        const int b = begin / kWeightBlock + thread;
        if (thread < kGroups * kOfSum && b * kWeightBlock < row.count)
          block.Store(thread, kBlockSums + 8 * b, sum_lanes(kLaneWeights, thread));
      });
      block.Sync();
      block.Each([&](int thread, Registers& r) {
        if (thread != 0) return;
        for (int group = 0; group < kGroups && begin + group * kSumBlock < row.count; ++group)
          r.sum += block.template Load<double>(thread, kGroupSums + 8 * group);
      });
    }
    block.Each([&](int thread, Registers& r) {
      if (thread == 0) block.Store(thread, kLogSum, static_cast<double>(top) + Log(r.sum));
    });
    block.Sync();
  }

  // Draws from the whole vocabulary: first the block of tokens, then the token. A warp has a draw.
  template <class Block>
  static PLURAL_DEVICE void DrawOfAll(Block& block, const SampledRow& row, float top) {
    const int blocks = (row.count + kWeightBlock - 1) / kWeightBlock;
    for (int first = 0; first < row.asked.draws; first += kWarps) {
      const auto leads = [&](int thread) {
        return thread % 32 == 0 && first + thread / 32 < row.asked.draws;
      };
      block.Each([&](int thread, Registers&) {
        if (!leads(thread)) return;
        const auto sum_at = [&](int b) { return block.template Load<double>(thread, kBlockSums + 8 * b); };
        double total = 0.0;
        for (int b = 0; b < blocks; ++b) total += sum_at(b);
        const double threshold = row.uniform[first + thread / 32] * total;
        int chosen = 0;
        double before = 0.0, cumulative = 0.0;
        for (int b = 0; b < blocks && !(cumulative > threshold); ++b) {
          const double sum = sum_at(b);
          if (sum == 0.0) continue;
          chosen = b;
          before = cumulative;
          cumulative += sum;
        }
        block.Store(thread, kBefore + 8 * (thread / 32), before);
        block.Store(thread, kThreshold + 8 * (thread / 32), threshold);
        block.Store(thread, kChosen + 4 * (thread / 32), chosen);
      });
      block.Sync();
      block.Each([&](int thread, Registers&) {
        const int warp = thread / 32;
        if (first + warp >= row.asked.draws) return;
        const int begin = block.template Load<int>(thread, kChosen + 4 * warp) * kWeightBlock;
        for (int i = thread % 32; i < kWeightBlock && begin + i < row.count; i += 32)
          block.Store(thread, kWeights + 4 * (warp * kWeightBlock + i), row.Weight(begin + i, top));
      });
      block.Sync();
      block.Each([&](int thread, Registers&) {
        if (!leads(thread)) return;
        const int warp = thread / 32,
                  begin = block.template Load<int>(thread, kChosen + 4 * warp) * kWeightBlock;
        auto cumulative = block.template Load<double>(thread, kBefore + 8 * warp);
        const auto threshold = block.template Load<double>(thread, kThreshold + 8 * warp);
        int last = 0;
        for (int i = 0; i < kWeightBlock && begin + i < row.count && !(cumulative > threshold); ++i) {
          const auto weight = block.template Load<float>(thread, kWeights + 4 * (warp * kWeightBlock + i));
          if (weight == 0) continue;
          last = i;
          cumulative += weight;
        }
        Answer(block, thread, row, first + warp, begin + last);
      });
      block.Sync();
    }
  }
};

// On how many blocks it starts: launch.Start<Program>(x, y, arguments) -> an error, 0 for none.
template <class Launch>
int StartSampleRows(const SampleRowsArguments& a, const Launch& launch) {
  if (a.rows == 0) return 0;
  if (a.count > kSampledVocabulary) return 1;  // cudaErrorInvalidValue
  return launch.template Start<SampleRow>(static_cast<int>(a.rows), 1, a);
}

}  // namespace plural::trainer::gpu
