// Pairs of a number and an index in shared memory, and their sorting by a block.
//
// Owns: the sorting network. Does not own: what is sorted (sample_rows.h). Thread rule: all threads of a
// block call; what they stored before is there for all others (Sync).
#pragma once

#include "trainer/kernels/cuda/numbers.h"

namespace plural::trainer::gpu {

struct NumberAndIndex {
  double number;
  int index;
};

// The larger number first, of equal ones the smaller index.
struct ByNumber {
  PLURAL_DEVICE bool operator()(const NumberAndIndex& a, const NumberAndIndex& b) const {
    return a.number > b.number || (a.number == b.number && a.index < b.index);
  }
};
struct ByIndex {
  PLURAL_DEVICE bool operator()(const NumberAndIndex& a, const NumberAndIndex& b) const {
    return a.index < b.index;
  }
};

// `kNumbers` and `kIndices`: where doubles and ints begin in shared memory.
template <int kNumbers, int kIndices, int kThreads>
struct SortedPairs {
  template <class Block>
  static PLURAL_DEVICE NumberAndIndex At(Block& block, int thread, int place) {
    return {block.template Load<double>(thread, kNumbers + 8 * place),
            block.template Load<int>(thread, kIndices + 4 * place)};
  }
  template <class Block>
  static PLURAL_DEVICE void Put(Block& block, int thread, int place, const NumberAndIndex& pair) {
    block.Store(thread, kNumbers + 8 * place, pair.number);
    block.Store(thread, kIndices + 4 * place, pair.index);
  }

  // The first `count` pairs; a bitonic network all of whose exchanges bring the first to the front, so that
  // pairs which are missing at the end of its power of two need not be there.
  template <class Before, class Block>
  static PLURAL_DEVICE void Sort(Block& block, int count, const Before& before) {
    for (int size = 2; size < 2 * count; size *= 2) {
      for (int half = size / 2; half > 0; half /= 2) {
        const bool first = half == size / 2;  // of this size: the second half is met from its end
        block.Each([&](int thread, auto&) {
          for (int pair = thread; pair / half * 2 * half < count; pair += kThreads) {
            const int begin = pair / half * 2 * half, of_half = pair % half;
            const int i = begin + of_half, j = first ? begin + size - 1 - of_half : i + half;
            if (j >= count) continue;
            const NumberAndIndex a = At(block, thread, i), b = At(block, thread, j);
            if (!before(b, a)) continue;
            Put(block, thread, i, b);
            Put(block, thread, j, a);
          }
        });
        block.Sync();
      }
    }
  }
};

}  // namespace plural::trainer::gpu
