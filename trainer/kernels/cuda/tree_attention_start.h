// Which attention kernel serves which arguments, and on how many blocks.
//
// Owns: the choice among compiled shapes. Does not own: the kernels (tree_attention.h,
// tree_attention_backward.h), how a kernel starts: launch.Start<Program>(x, y, arguments) -> an error, 0 for
// none. Thread rule: pure, on the host.
#pragma once

#include "trainer/kernels/cuda/tree_attention_backward.h"

namespace plural::trainer::gpu {

constexpr int kNoShape = 1;  // cudaErrorInvalidValue

// f.Of<E, width>() for the shape that serves, kNoShape where none does.
template <class F>
int WithTreeShape(KernelType type, int dim, const F& f) {
  const int width = TreeWidthOf(dim);
  if (type == KernelType::kBf16) {
    if (width == 64) return f.template Of<Bf16, 64>();
    if (width == 128) return f.template Of<Bf16, 128>();
    if (width == 256) return f.template Of<Bf16, 256>();
  }
  if (type == KernelType::kFp32) {
    if (width == 64) return f.template Of<float, 64>();
    if (width == 128) return f.template Of<float, 128>();
    if (width == 256) return f.template Of<float, 256>();
  }
  return kNoShape;
}

constexpr int BlocksOver(int rows, int block) { return (rows + block - 1) / block; }

template <class Launch>
struct TreeForwardStart {
  const Launch& launch;
  const TreeAttentionArguments& a;

  template <class E, int kWidth>
  int Of() const {
    const TreeBlocks blocks = TreeBlocksOf(a.type, a.dim, a.heads, a.shared_heads);
    return launch.template Start<TreeForward<E, kWidth>>(BlocksOver(a.rows, blocks.queries),
                                                         a.heads / blocks.heads_per_block, a);
  }
};

template <class Launch>
struct TreeBackwardStart {
  const Launch& launch;
  const TreeAttentionArguments& a;

  template <class E, int kWidth>
  int Of() const {
    using KeyGradient = TreeKeyGradient<E, kWidth>;
    const TreeBlocks blocks = TreeBlocksOf(a.type, a.dim, a.heads, a.shared_heads);
    const int error = launch.template Start<TreeQueryGradient<E, kWidth>>(
        BlocksOver(a.rows, blocks.queries), a.heads / blocks.heads_per_block, a);
    if (error != 0) return error;
    return launch.template Start<KeyGradient>(BlocksOver(a.rows, blocks.key_block),
                                              a.shared_heads * KeyGradient::kParts, a);
  }
};

// What cards of compute capability 8.6, 8.9 and 12.0 give a block.
static_assert(TreeQueryGradient<Bf16, 256>::kBytes <= 99 * 1024);
static_assert(TreeKeyGradient<Bf16, 256>::kBytes <= 99 * 1024);

template <class Launch>
int StartTreeAttention(const TreeAttentionArguments& a, const Launch& launch) {
  return a.rows == 0 ? 0 : WithTreeShape(a.type, a.dim, TreeForwardStart<Launch>{launch, a});
}
template <class Launch>
int StartTreeAttentionBackward(const TreeAttentionArguments& a, const Launch& launch) {
  return a.rows == 0 ? 0 : WithTreeShape(a.type, a.dim, TreeBackwardStart<Launch>{launch, a});
}

// The most shared memory that a block of these kernels takes.
struct TreeSharedBytes {
  template <class E, int kWidth>
  int Of() const {
    int most = TreeForward<E, kWidth>::kBytes;
    if (TreeQueryGradient<E, kWidth>::kBytes > most) most = TreeQueryGradient<E, kWidth>::kBytes;
    if (TreeKeyGradient<E, kWidth>::kBytes > most) most = TreeKeyGradient<E, kWidth>::kBytes;
    return most;
  }
};

}  // namespace plural::trainer::gpu
