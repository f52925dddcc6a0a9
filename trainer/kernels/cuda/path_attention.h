// Attention of one new token per path over a pool of keys and values. The kernels' source.
//
// Owns: the work of one block. Does not own: launches (path_attention.cu), the same on the CPU
// (kernels/path_attention.h). Thread rule: all threads of a block call.
//
// A block has a part of one row's path and some query heads that share a key head, whose keys and values it
// reads once for them, from where they lie. Four threads have a token's product with the queries, 16 bytes at
// a time; then sixteen have a head's softmax; then a thread has 16 bytes of the values of every n-th token.
// Where paths have several parts, a second kernel adds them up. All sums are fp32 and in an order that
// depends on the path's length alone.
#pragma once

#include "trainer/kernels/cuda/path_attention_module.h"
#include "trainer/kernels/cuda/pointwise.h"

namespace plural::trainer::gpu {

constexpr int kPathThreads = 128;

// A logit in units of ln 2.
PLURAL_DEVICE float PathLogit(const PathAttentionArguments& a, float product) {
  return a.softcap > 0 ? a.softcap * kLog2E * Tanh(product * a.scale / a.softcap)
                       : product * (a.scale * kLog2E);
}

// What is seen of a row's path.
struct SeenPath {
  int first, tokens, parts;

  PLURAL_DEVICE SeenPath(const PathAttentionArguments& a, int row) {
    const int end = a.first[row + 1];
    first = a.first[row];
    if (a.window > 0 && end - first > a.window) first = end - a.window;
    tokens = end - first;
    parts = static_cast<int>(PathPartsOf(tokens));
  }
};

template <class E>
struct PathPart {
  int row, heads, first_head, shared_head;
  int first;  // token of the part, as an index into a.slot
  int count;  // tokens; 0: the path is shorter
  bool has_newest, first_of_shared;

  PLURAL_DEVICE PathPart(const PathAttentionArguments& a, int index, int part) {
    const int sharing = a.heads / a.shared_heads;
    heads = PathHeadsOf(sharing);
    const int blocks = a.heads / heads;
    row = index / blocks;
    first_head = index % blocks * heads;
    shared_head = first_head / sharing;
    first_of_shared = first_head % sharing == 0;
    const SeenPath path(a, row);
    const int begin = part * static_cast<int>(kPathPart), left = path.tokens - begin;
    first = path.first + begin;
    count = left < 0 ? 0 : left < static_cast<int>(kPathPart) ? left : static_cast<int>(kPathPart);
    has_newest = count > 0 && left == count;
  }

  // The newest token's lie in `fresh`, and in the pool once this kernel has ended.
  PLURAL_DEVICE const E* At(const PathAttentionArguments& a, const void* pool, const void* fresh,
                            std::int64_t fresh_row, int token, int slot) const {
    if (has_newest && token == count - 1) {
      return static_cast<const E*>(fresh) + row * fresh_row + shared_head * a.dim;
    }
    return static_cast<const E*>(pool) +
           (static_cast<std::int64_t>(slot) * a.shared_heads + shared_head) * a.dim;
  }
};

template <class E>
struct PathAttentionPart {
  static constexpr int kThreads = kPathThreads, kValues = kValuesOf<E>;
  static constexpr int kQuads = kThreads / 4, kTokensAtOnce = 2;  // of four threads
  static constexpr int kOfHead = kThreads / kPathHeads;           // threads of a head's softmax
  static constexpr int kValueTokens = 4;  // of a thread at once, so that their loads wait together
  static constexpr int kPitch = static_cast<int>(kPathPart) + 16;
  // Shared memory; sums of values take the place of queries and scores.
  static constexpr int kSlots = 0, kTops = kSlots + 4 * static_cast<int>(kPathPart),
                       kSums = kTops + 4 * kThreads;
  static constexpr int kQ = kSums + 4 * kThreads, kScores = kQ + 4 * kPathHeads * 256;
  static constexpr int kPartial = kQ;
  static constexpr int kScoresEnd = kScores + 4 * kPathHeads * kPitch;
  static constexpr int kPartialEnd = kPartial + 4 * kThreads * kValues * kPathHeads;
  static constexpr int kBytes = kScoresEnd > kPartialEnd ? kScoresEnd : kPartialEnd;

  struct Registers {
    float product[kTokensAtOnce][kPathHeads];
    float out[kPathHeads][kValues];
  };

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const PathAttentionArguments& a, int index, int part_number) {
    const PathPart<E> part(a, index, part_number);
    if (part.count == 0) return;
    block.Each([&](int thread, Registers&) {
      for (int t = thread; t < part.count; t += kThreads)
        block.Store(thread, kSlots + 4 * t, a.slot[part.first + t]);
      for (int i = thread * kValues; i < part.heads * a.dim; i += kThreads * kValues) {
        const auto q = Values<E>::Load(a.q, part.row * a.q_row + part.first_head * a.dim + i);
        PLURAL_UNROLL
        for (int v = 0; v < kValues; ++v) block.Store(thread, kQ + 4 * (i + v), q.v[v]);
      }
      if (!part.has_newest || !part.first_of_shared) return;
      const std::int64_t to =
          (static_cast<std::int64_t>(a.slot[part.first + part.count - 1]) * a.shared_heads +
           part.shared_head) *
          a.dim;
      for (int d = thread * kValues; d < a.dim; d += kThreads * kValues) {
        const int head = part.shared_head * a.dim + d;
        StoreSixteen(LoadSixteen(static_cast<const E*>(a.new_k) + part.row * a.k_row + head),
                     static_cast<E*>(a.k) + to + d);
        StoreSixteen(LoadSixteen(static_cast<const E*>(a.new_v) + part.row * a.v_row + head),
                     static_cast<E*>(a.v) + to + d);
      }
    });
    block.Sync();
    for (int first = 0; first < part.count; first += kQuads * kTokensAtOnce) Products(block, a, part, first);
    block.Sync();
    Softmax(block, part);
    SumValues(block, a, part);
    block.Sync();  // nobody reads the scores any more
    Finish(block, a, part, part_number);
  }

 private:
  // Logits of kQuads * kTokensAtOnce tokens from `first` on.
  template <class Block>
  static PLURAL_DEVICE void Products(Block& block, const PathAttentionArguments& a, const PathPart<E>& part,
                                     int first) {
    block.Each([&](int thread, Registers& r) {
      const E* key[kTokensAtOnce];
      PLURAL_UNROLL
      for (int u = 0; u < kTokensAtOnce; ++u) {
        int token = first + u * kQuads + thread / 4;
        if (token >= part.count) token = part.count - 1;  // computed and left out
        key[u] =
            part.At(a, a.k, a.new_k, a.k_row, token, block.template Load<int>(thread, kSlots + 4 * token));
        PLURAL_UNROLL
        for (int h = 0; h < kPathHeads; ++h) r.product[u][h] = 0;
      }
      for (int d = thread % 4 * kValues; d < a.dim; d += 4 * kValues) {
        Values<E> k[kTokensAtOnce];
        PLURAL_UNROLL
        for (int u = 0; u < kTokensAtOnce; ++u) k[u] = Values<E>::Load(key[u], d);
        PLURAL_UNROLL
        for (int h = 0; h < kPathHeads; ++h) {
          if (h >= part.heads) continue;
          PLURAL_UNROLL
          for (int v = 0; v < kValues; v += 4) {
            const auto q = block.template Load<SixteenBytes>(thread, kQ + 4 * (h * a.dim + d + v));
            PLURAL_UNROLL
            for (int u = 0; u < kTokensAtOnce; ++u) {
              PLURAL_UNROLL
              for (int w = 0; w < 4; ++w) r.product[u][h] += k[u].v[v + w] * FloatOf(q.words[w]);
            }
          }
        }
      }
    });
    PLURAL_UNROLL
    for (int u = 0; u < kTokensAtOnce; ++u) {
      PLURAL_UNROLL
      for (int h = 0; h < kPathHeads; ++h) {
        if (h < part.heads) block.QuadSum([u, h](Registers& r) -> float& { return r.product[u][h]; });
      }
    }
    block.Each([&](int thread, Registers& r) {
      if (thread % 4 != 0) return;
      PLURAL_UNROLL
      for (int u = 0; u < kTokensAtOnce; ++u) {
        const int token = first + u * kQuads + thread / 4;
        PLURAL_UNROLL
        for (int h = 0; h < kPathHeads; ++h) {
          if (token < part.count && h < part.heads)
            block.Store(thread, kScores + 4 * (h * kPitch + token), PathLogit(a, r.product[u][h]));
        }
      }
    });
  }

  // Logits become exponentials; kTops has the largest ones' parts, kSums those of sums.
  template <class Block>
  static PLURAL_DEVICE void Softmax(Block& block, const PathPart<E>& part) {
    const auto score_at = [](int thread, int token) {
      return kScores + 4 * (thread / kOfHead * kPitch + token);
    };
    block.Each([&](int thread, Registers&) {
      if (thread / kOfHead >= part.heads) return;
      float top = MinusInfinity();
      for (int t = thread % kOfHead; t < part.count; t += kOfHead) {
        const auto score = block.template Load<float>(thread, score_at(thread, t));
        top = score > top ? score : top;
      }
      block.Store(thread, kTops + 4 * thread, top);
    });
    block.Sync();
    block.Each([&](int thread, Registers&) {
      if (thread / kOfHead >= part.heads) return;
      const float top = TopOf(block, thread, thread / kOfHead);
      float sum = 0;
      for (int t = thread % kOfHead; t < part.count; t += kOfHead) {
        const float weight = Exp2(block.template Load<float>(thread, score_at(thread, t)) - top);
        block.Store(thread, score_at(thread, t), weight);
        sum += weight;
      }
      block.Store(thread, kSums + 4 * thread, sum);
    });
    block.Sync();
  }

  template <class Block>
  static PLURAL_DEVICE float TopOf(Block& block, int thread, int head) {
    float top = MinusInfinity();
    PLURAL_UNROLL
    for (int i = 0; i < kOfHead; ++i) {
      const auto part = block.template Load<float>(thread, kTops + 4 * (head * kOfHead + i));
      top = part > top ? part : top;
    }
    return top;
  }
  template <class Block>
  static PLURAL_DEVICE float SumOf(Block& block, int thread, int head) {
    float sum = 0;
    PLURAL_UNROLL
    for (int i = 0; i < kOfHead; ++i)
      sum += block.template Load<float>(thread, kSums + 4 * (head * kOfHead + i));
    return sum;
  }

  // Adds up the values of a thread's tokens, in its registers.
  template <class Block>
  static PLURAL_DEVICE void SumValues(Block& block, const PathAttentionArguments& a,
                                      const PathPart<E>& part) {
    const int pieces = a.dim / kValues, groups = kThreads / pieces;
    block.Each([&](int thread, Registers& r) {
      PLURAL_UNROLL
      for (int h = 0; h < kPathHeads; ++h) {
        PLURAL_UNROLL
        for (int v = 0; v < kValues; ++v) r.out[h][v] = 0;
      }
      const int group = thread / pieces, d = thread % pieces * kValues;
      if (group >= groups) return;
      for (int first = group; first < part.count; first += groups * kValueTokens) {
        Values<E> value[kValueTokens];
        PLURAL_UNROLL
        for (int u = 0; u < kValueTokens; ++u) {
          const int token = first + u * groups < part.count ? first + u * groups : first;
          const auto slot = block.template Load<int>(thread, kSlots + 4 * token);
          value[u] = Values<E>::Load(part.At(a, a.v, a.new_v, a.v_row, token, slot), d);
        }
        PLURAL_UNROLL
        for (int u = 0; u < kValueTokens; ++u) {
          const int token = first + u * groups;
          if (token >= part.count) continue;
          PLURAL_UNROLL
          for (int h = 0; h < kPathHeads; ++h) {
            if (h >= part.heads) continue;
            const auto weight = block.template Load<float>(thread, kScores + 4 * (h * kPitch + token));
            PLURAL_UNROLL
            for (int v = 0; v < kValues; ++v) r.out[h][v] += weight * value[u].v[v];
          }
        }
      }
    });
  }

  // The threads' sums are added, and go to the output or, of several parts, to the scratch.
  template <class Block>
  static PLURAL_DEVICE void Finish(Block& block, const PathAttentionArguments& a, const PathPart<E>& part,
                                   int part_number) {
    const int pieces = a.dim / kValues, groups = kThreads / pieces, values = part.heads * a.dim;
    block.Each([&](int thread, Registers& r) {
      const int group = thread / pieces, d = thread % pieces * kValues;
      if (group >= groups) return;
      PLURAL_UNROLL
      for (int h = 0; h < kPathHeads; ++h) {
        if (h >= part.heads) continue;
        PLURAL_UNROLL
        for (int v = 0; v < kValues; ++v)
          block.Store(thread, kPartial + 4 * (group * values + h * a.dim + d + v), r.out[h][v]);
      }
    });
    block.Sync();
    block.Each([&](int thread, Registers&) {
      for (int i = thread; i < values; i += kThreads) {
        float sum = 0;
        for (int group = 0; group < groups; ++group)
          sum += block.template Load<float>(thread, kPartial + 4 * (group * values + i));
        const int h = i / a.dim, d = i % a.dim;
        const std::int64_t head = static_cast<std::int64_t>(part.row) * a.heads + part.first_head + h;
        const float total = SumOf(block, thread, h);
        if (a.parts == 1) {
          Round(sum * (1 / total), static_cast<E*>(a.out) + head * a.dim + d);
          continue;
        }
        float* scratch = a.scratch + (head * a.parts + part_number) * (a.dim + 2);
        scratch[d] = sum;
        if (d > 0) continue;
        scratch[a.dim] = TopOf(block, thread, h);
        scratch[a.dim + 1] = total;
      }
    });
  }
};

// The parts of one head of one row, in order; of one part the same bits as without this kernel.
template <class E>
struct PathAttentionSum {
  static constexpr int kThreads = kPathThreads, kBytes = 16;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const PathAttentionArguments& a, int head, int) {
    const int parts = SeenPath(a, head / a.heads).parts;
    const float* scratch = a.scratch + static_cast<std::int64_t>(head) * a.parts * (a.dim + 2);
    block.Each([&](int thread, Registers&) {
      float top = MinusInfinity();
      for (int part = 0; part < parts; ++part) {
        const float of_part = scratch[part * (a.dim + 2) + a.dim];
        top = of_part > top ? of_part : top;
      }
      float total = 0;
      for (int part = 0; part < parts; ++part) {
        const float* stats = scratch + part * (a.dim + 2) + a.dim;
        total += stats[1] * Exp2(stats[0] - top);
      }
      for (int d = thread; d < a.dim; d += kThreads) {
        float sum = 0;
        for (int part = 0; part < parts; ++part) {
          const float* of_part = scratch + part * (a.dim + 2);
          sum += of_part[d] * Exp2(of_part[a.dim] - top);
        }
        Round(sum * (1 / total), static_cast<E*>(a.out) + static_cast<std::int64_t>(head) * a.dim + d);
      }
    });
  }
};

// On how many blocks these start: launch.Start<Program>(x, y, arguments) -> an error, 0 for none.
template <class Launch>
int StartPathAttention(const PathAttentionArguments& a, const Launch& launch) {
  if (a.rows == 0) return 0;
  if (!PathAttentionServes(a.type, a.dim)) return 1;  // cudaErrorInvalidValue
  const std::int64_t heads = std::int64_t{a.rows} * a.heads;
  const int error =
      StartTyped<PathAttentionPart>(heads / PathHeadsOf(a.heads / a.shared_heads), a.parts, a, launch);
  if (error != 0 || a.parts == 1) return error;
  return StartTyped<PathAttentionSum>(heads, 1, a, launch);
}

}  // namespace plural::trainer::gpu
