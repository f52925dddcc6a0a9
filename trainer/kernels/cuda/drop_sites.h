// Dropout of the inputs of several adapters at once, and of their gradients, on a GPU: the kernel's source.
//
// Owns: the work of one block. Does not own: the draws (dropout_draws.h), which sites there are. Thread rule:
// all threads of a block call.
//
// What all sites share, x or the sum, is read once and stays in registers.
#pragma once

#include "trainer/kernels/cuda/drop_sites_module.h"
#include "trainer/kernels/cuda/pointwise.h"
#include "trainer/kernels/cuda/unfused.h"
#include "trainer/kernels/dropout_draws.h"

namespace plural::trainer::gpu {

// A stretch of one row.
template <class E>
struct DropSitesPart {
  static constexpr int kThreads = kRowThreads, kBytes = 8 * kMostDropSites;
  static constexpr int kStretch = kThreads * kValuesOf<E>;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const DropSitesArguments& a, int row, int part) {
    block.Each([&](int thread, Registers&) {
      if (thread >= a.sites) return;
      block.Store(thread, 8 * thread,
                  host::DropoutStream(static_cast<std::uint64_t>(a.row_key[row]), a.site[thread]));
    });
    block.Sync();
    block.Each([&](int thread, Registers&) {
      const std::int64_t feature = static_cast<std::int64_t>(part) * kStretch + thread * kValuesOf<E>;
      if (feature >= a.features) return;
      const std::int64_t at = row * a.features + feature, of_site = a.rows * a.features;
      const auto factor = [&](std::uint64_t stream, int v) {
        return host::DropoutFactor(stream, static_cast<std::uint64_t>(feature + v), a.threshold, a.kept);
      };
      if (a.sum == nullptr) {
        const auto x = Values<E>::Load(a.x, at);
        for (int site = 0; site < a.sites; ++site) {
          const auto stream = block.template Load<std::uint64_t>(thread, 8 * site);
          auto dropped = x;
          PLURAL_UNROLL
          for (int v = 0; v < kValuesOf<E>; ++v) dropped.v[v] = Product(x.v[v], factor(stream, v));
          dropped.Store(a.dropped, site * of_site + at);
        }
        return;
      }
      auto sum = Values<E>::Load(a.sum, at);
      for (int site = 0; site < a.sites; ++site) {
        const auto stream = block.template Load<std::uint64_t>(thread, 8 * site);
        auto d = Values<E>::Load(a.dx, site * of_site + at);
        PLURAL_UNROLL
        for (int v = 0; v < kValuesOf<E>; ++v) d.v[v] = Product(d.v[v], factor(stream, v));
        d.Rounded();
        PLURAL_UNROLL
        for (int v = 0; v < kValuesOf<E>; ++v) sum.v[v] += d.v[v];
        sum.Rounded();
      }
      sum.Store(a.sum, at);
    });
  }
};

template <class Launch>
int StartDropSites(const DropSitesArguments& a, const Launch& launch) {
  const std::int64_t stretch =
      a.type == KernelType::kFp32 ? DropSitesPart<float>::kStretch : DropSitesPart<Bf16>::kStretch;
  return StartTyped<DropSitesPart>(a.rows, PiecesOver(a.features, stretch), a, launch);
}

}  // namespace plural::trainer::gpu
