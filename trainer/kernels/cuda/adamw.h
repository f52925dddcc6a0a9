// AdamW on a GPU: the kernel's source.
//
// Owns: the update of an element, the work of one block. Does not own: scalars and ranges
// (trainer/state/optimizer.h), the loop of the CPU, whose order of operations this is. Thread rule: all
// threads of a block call.
#pragma once

#include "trainer/kernels/cuda/adamw_module.h"
#include "trainer/kernels/cuda/unfused.h"

namespace plural::trainer::gpu {

template <class T>
PLURAL_DEVICE void UpdateElement(T* p, const T* g, T* m, T* v, const AdamWScalars<T>& u) {
  const T gradient = Product(*g, u.gradient_scale);
  const T first = *m + Product(u.one_minus_beta1, gradient - *m);
  const T second = Product(*v, u.beta2) + Product(Product(u.one_minus_beta2, gradient), gradient);
  const T denominator = Quotient(Root(second), u.correction2_sqrt) + u.eps;
  *m = first;
  *v = second;
  *p = Product(*p, u.decay) - Product(u.step_size, Quotient(first, denominator));
}

template <class T>
PLURAL_DEVICE AdamWScalars<T> RoundedTo(const AdamWScalars<double>& u) {
  return {static_cast<T>(u.gradient_scale),
          static_cast<T>(u.decay),
          static_cast<T>(u.one_minus_beta1),
          static_cast<T>(u.beta2),
          static_cast<T>(u.one_minus_beta2),
          static_cast<T>(u.correction2_sqrt),
          static_cast<T>(u.eps),
          static_cast<T>(u.step_size)};
}

// A thread takes elements that lie kThreads apart: neighbours load neighbours, wherever the range begins.
template <class T>
struct AdamWPart {
  static constexpr int kThreads = 256, kBytes = 16, kElements = 4;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const AdamWArguments& a, int index, int) {
    const AdamWScalars<T> u = RoundedTo<T>(a.scalars);
    block.Each([&](int thread, Registers&) {
      PLURAL_UNROLL
      for (int i = 0; i < kElements; ++i) {
        const std::int64_t at = (static_cast<std::int64_t>(index) * kElements + i) * kThreads + thread;
        if (at >= a.count) return;
        UpdateElement(static_cast<T*>(a.values) + at, static_cast<const T*>(a.gradients) + at,
                      static_cast<T*>(a.first_moment) + at, static_cast<T*>(a.second_moment) + at, u);
      }
    });
  }
};

template <class Launch>
int StartAdamW(const AdamWArguments& a, const Launch& launch) {
  if (a.count == 0) return 0;
  constexpr std::int64_t kOfBlock = AdamWPart<float>::kThreads * AdamWPart<float>::kElements;
  const auto blocks = static_cast<int>((a.count + kOfBlock - 1) / kOfBlock);
  if (a.type == KernelType::kFp32) return launch.template Start<AdamWPart<float>>(blocks, 1, a);
  if (a.type == KernelType::kFp64) return launch.template Start<AdamWPart<double>>(blocks, 1, a);
  return 1;  // cudaErrorInvalidValue
}

}  // namespace plural::trainer::gpu
