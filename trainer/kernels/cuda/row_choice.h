// The tokens of a row that top-k and top-p leave, as a block finds them on a GPU.
//
// Owns: the filters, and the draw from what they leave. Does not own: what they mean (generate/sampler.h),
// whose order of sums and ties this is. Thread rule: all threads of a block call; results that are returned
// are every thread's.
#pragma once

#include "trainer/kernels/cuda/sampled_row.h"
#include "trainer/kernels/cuda/sorted_pairs.h"

namespace plural::trainer::gpu {

struct RowChoice : SampleLayout {
  // The tokens that filters leave, in order of id with their weights; returns their number, -1 where they are
  // not served.
  template <class Block>
  static PLURAL_DEVICE int Choose(Block& block, const SampledRow& row, float top, bool filters_k) {
    if (filters_k) {
      const int kept = TakeTop(block, row, row.asked.top_k, top);
      if (kept <= 0 || row.asked.top_p >= 1.0) return kept;
      return CutTopP(block, row, kept, MassOf(block, kept));
    }
    const int blocks = (row.count + kWeightBlock - 1) / kWeightBlock;
    const double total = BySumming(block, blocks, kBlockSums);
    for (std::int64_t count = kFirstTopP;; count *= 8) {
      const int kept = TakeTop(block, row, count < row.count ? count : row.count, top);
      if (kept <= 0) return kept;
      if (MassOf(block, kept) >= row.asked.top_p * total || count >= row.count)
        return CutTopP(block, row, kept, total);
    }
  }

  // Draws one of the `kept` tokens that Choose left.
  template <class Block>
  static PLURAL_DEVICE int DrawOfChosen(Block& block, int thread, int kept, double uniform) {
    const auto weight_at = [&](int i) { return block.template Load<double>(thread, kNumbers + 8 * i); };
    double total = 0.0;
    for (int i = 0; i < kept; ++i) total += weight_at(i);
    const double threshold = uniform * total;
    double cumulative = 0.0;
    int last = 0;
    for (int i = 0; i < kept; ++i) {
      const double weight = weight_at(i);
      if (weight == 0.0) continue;
      last = i;
      cumulative += weight;
      if (cumulative > threshold) break;
    }
    return block.template Load<int>(thread, kIndices + 4 * last);
  }

 private:
  using Chosen = SortedPairs<kNumbers, kIndices, kThreads>;

  // In order, by one thread; every thread has it.
  template <class Block>
  static PLURAL_DEVICE double BySumming(Block& block, int count, int offset) {
    block.Each([&](int thread, SampleRegisters&) {
      if (thread != 0) return;
      double sum = 0.0;
      for (int i = 0; i < count; ++i) sum += block.template Load<double>(thread, offset + 8 * i);
      block.Store(thread, kMass, sum);
    });
    block.Sync();
    const auto sum = block.template Load<double>(0, kMass);
    block.Sync();
    return sum;
  }
  template <class Block>
  static PLURAL_DEVICE double MassOf(Block& block, int kept) {
    return BySumming(block, kept, kNumbers);
  }

  // Tokens whose logits are at least the count-th largest, with their weights in order of id.
  template <class Block>
  static PLURAL_DEVICE int TakeTop(Block& block, const SampledRow& row, std::int64_t count, float top) {
    if (count > kMaxima) return -1;
    const int wanted = static_cast<int>(count);
    block.Each([&](int thread, SampleRegisters& r) {
      Chosen::Put(block, thread, thread, {r.largest[0], thread});
      Chosen::Put(block, thread, thread + kThreads, {r.largest[1], thread + kThreads});
    });
    block.Sync();
    Chosen::Sort(block, kMaxima, ByNumber());
    const double least = Chosen::At(block, 0, wanted - 1).number;
    block.Sync();
    const int found = ListThoseAbove(block, row, static_cast<float>(least));
    if (found < wanted) return -1;
    Chosen::Sort(block, found, ByNumber());
    const double edge = Chosen::At(block, 0, wanted - 1).number;
    block.Each([&](int thread, SampleRegisters&) {
      for (int i = thread; i < found; i += kThreads) {
        const bool last = Chosen::At(block, thread, i).number >= edge &&
                          (i + 1 == found || Chosen::At(block, thread, i + 1).number < edge);
        if (last) block.Store(thread, kKept, i + 1);
      }
    });
    block.Sync();
    const auto kept = block.template Load<int>(0, kKept);
    block.Each([&](int thread, SampleRegisters&) {
      for (int i = thread; i < kept; i += kThreads) {
        NumberAndIndex token = Chosen::At(block, thread, i);
        token.number = Exponential((token.number - static_cast<double>(top)) / row.asked.temperature);
        Chosen::Put(block, thread, i, token);
      }
    });
    block.Sync();
    Chosen::Sort(block, kept, ByIndex());
    return kept;
  }

  // All tokens with logits of at least `least`; returns their number, -1 for too many.
  template <class Block>
  static PLURAL_DEVICE int ListThoseAbove(Block& block, const SampledRow& row, float least) {
    block.Each([&](int thread, SampleRegisters& r) {
      r.count = 0;
      for (int i = thread; i < row.count; i += kThreads) r.count += row.At(i) >= least ? 1 : 0;
      block.Store(thread, kCounts + 4 * thread, r.count);
    });
    block.Sync();
    for (int apart = 1; apart < kThreads; apart *= 2) {
      block.Each([&](int thread, SampleRegisters& r) {
        r.before = thread >= apart ? block.template Load<int>(thread, kCounts + 4 * (thread - apart)) : 0;
      });
      block.Sync();
      block.Each([&](int thread, SampleRegisters& r) {
        const auto mine = block.template Load<int>(thread, kCounts + 4 * thread);
        block.Store(thread, kCounts + 4 * thread, mine + r.before);
      });
      block.Sync();
    }
    const auto found = block.template Load<int>(0, kCounts + 4 * (kThreads - 1));
    if (found > kCandidates) return -1;
    block.Each([&](int thread, SampleRegisters& r) {
      int place = block.template Load<int>(thread, kCounts + 4 * thread) - r.count;
      for (int i = thread; i < row.count; i += kThreads) {
        const float logit = row.At(i);
        if (logit >= least) Chosen::Put(block, thread, place++, {logit, i});
      }
    });
    block.Sync();
    return found;
  }

  // Keeps the smallest set of most likely tokens whose mass reaches top_p of `total`; at least one.
  template <class Block>
  static PLURAL_DEVICE int CutTopP(Block& block, const SampledRow& row, int kept, double total) {
    Chosen::Sort(block, kept, ByNumber());
    block.Each([&](int thread, SampleRegisters&) {
      if (thread != 0) return;
      double mass = 0.0;
      int i = 0;
      for (; i < kept && !(mass >= row.asked.top_p * total && mass > 0.0); ++i)
        mass += block.template Load<double>(thread, kNumbers + 8 * i);
      block.Store(thread, kKept, i);
    });
    block.Sync();
    const auto left = block.template Load<int>(0, kKept);
    Chosen::Sort(block, left, ByIndex());
    return left;
  }
};

}  // namespace plural::trainer::gpu
