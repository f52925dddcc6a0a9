#include "trainer/state/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <stdexcept>

#include "trainer/kernels/cuda/adamw.h"
#include "trainer/ops/adamw_cuda.h"
#include "trainer/state/device_update.h"

namespace plural::trainer {
namespace {

// A fused multiply-add on some machines only would make results depend on the machine; -O2 does not
// vectorise loops of unknown length.
#pragma GCC push_options
#pragma GCC optimize("O3", "fp-contract=off")

#if defined(__x86_64__) && !defined(__clang__)  // clang (14) makes no clones for these levels
#define PLURAL_EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PLURAL_EVERY_CPU
#endif

constexpr std::int64_t kBlock = 512;

// root[i] = sqrt(x[i]). Written out for x86 because a loop over sqrt(), which may set errno, stays scalar.
[[gnu::always_inline]] inline void Roots(const float* x, float* root, std::int64_t size) {
  std::int64_t i = 0;
#ifdef __SSE2__
  for (; i + 4 <= size; i += 4) _mm_storeu_ps(root + i, _mm_sqrt_ps(_mm_loadu_ps(x + i)));
#endif
  for (; i < size; ++i) root[i] = std::sqrt(x[i]);
}
[[gnu::always_inline]] inline void Roots(const double* x, double* root, std::int64_t size) {
  std::int64_t i = 0;
#ifdef __SSE2__
  for (; i + 2 <= size; i += 2) _mm_storeu_pd(root + i, _mm_sqrt_pd(_mm_loadu_pd(x + i)));
#endif
  for (; i < size; ++i) root[i] = std::sqrt(x[i]);
}

// Same operations as torch.optim.AdamW: decay, lerp of the first moment, second moment, then
// p -= step_size * m / (sqrt(v) / sqrt(1 - beta2^t) + eps). One pass over memory, block by block.
template <typename T>
[[gnu::always_inline]] inline void UpdateElements(T* __restrict p, const T* __restrict g, T* __restrict m,
                                                  T* __restrict v, std::int64_t size,
                                                  const AdamWScalars<T> u) {
  alignas(64) T root[kBlock];
  for (std::int64_t start = 0; start < size; start += kBlock) {
    const std::int64_t end = std::min(start + kBlock, size);
    for (std::int64_t i = start; i < end; ++i) {
      const T gradient = g[i] * u.gradient_scale;
      m[i] += u.one_minus_beta1 * (gradient - m[i]);
      v[i] = v[i] * u.beta2 + u.one_minus_beta2 * gradient * gradient;
    }
    Roots(v + start, root, end - start);
    for (std::int64_t i = start; i < end; ++i) {
      const T denominator = root[i - start] / u.correction2_sqrt + u.eps;
      p[i] = p[i] * u.decay - u.step_size * (m[i] / denominator);
    }
  }
}

// Target clones cannot be templates.
PLURAL_EVERY_CPU
void UpdateRange(float* p, const float* g, float* m, float* v, std::int64_t size,
                 const AdamWScalars<float>& u) {
  UpdateElements(p, g, m, v, size, u);
}
PLURAL_EVERY_CPU
void UpdateRange(double* p, const double* g, double* m, double* v, std::int64_t size,
                 const AdamWScalars<double>& u) {
  UpdateElements(p, g, m, v, size, u);
}

// Sixteen partial sums, whatever the vector width: the same bits on every machine.
template <typename T>
[[gnu::always_inline]] inline double SumOfSquares(const T* __restrict x, std::int64_t size) {
  constexpr std::int64_t kLanes = 16;
  double lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const auto value = static_cast<double>(x[i + j]);
      lane[j] += value * value;
    }
  }
  for (; i < size; ++i) lane[i % kLanes] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0.0;
  for (const double partial : lane) sum += partial;
  return sum;
}

PLURAL_EVERY_CPU
double SquaresOf(const float* x, std::int64_t size) { return SumOfSquares(x, size); }
PLURAL_EVERY_CPU
double SquaresOf(const double* x, std::int64_t size) { return SumOfSquares(x, size); }

#pragma GCC pop_options

template <typename T>
void UpdateOnCpu(const AdamWBuffers& range, const AdamWScalars<double>& u) {
  UpdateRange(range.values.mutable_data_ptr<T>(), range.gradients.const_data_ptr<T>(),
              range.first_moment.mutable_data_ptr<T>(), range.second_moment.mutable_data_ptr<T>(),
              range.values.numel(), gpu::RoundedTo<T>(u));
}

double SquaresIn(const at::Tensor& flat, std::int64_t offset, std::int64_t size) {
  return flat.scalar_type() == at::kDouble ? SquaresOf(flat.const_data_ptr<double>() + offset, size)
                                           : SquaresOf(flat.const_data_ptr<float>() + offset, size);
}

}  // namespace

AdamW::AdamW(const dist::FlatParameters& parameters, const Settings& settings,
             const std::vector<double>& lr_scales, const dist::Shards* shards)
    : settings_(settings) {
  if (!lr_scales.empty() && lr_scales.size() != parameters.Spans().size()) {
    throw std::logic_error("AdamW: one learning-rate scale a span is needed");
  }
  for (std::size_t i = 0; i < parameters.Spans().size(); ++i) {
    const auto& span = parameters.Spans()[i];
    const bool decays = settings.weight_decay != 0.0 && span.shape.size() >= 2;
    const double lr_scale = lr_scales.empty() ? 1.0 : lr_scales[i];
    if (!ranges_.empty() && ranges_.back().decays == decays && ranges_.back().lr_scale == lr_scale) {
      // The padding between spans is zero and stays zero.
      ranges_.back().size = span.offset + span.size - ranges_.back().offset;
    } else {
      ranges_.push_back({span.offset, span.size, span.offset, decays, lr_scale});
    }
  }
  if (shards != nullptr) ranges_ = KeptOf(ranges_, *shards);
  const std::int64_t kept = shards != nullptr ? shards->OwnElements() : parameters.Values().numel();
  first_moment_ = at::zeros({kept}, parameters.Values().options());
  second_moment_ = at::zeros({kept}, parameters.Values().options());
}

std::vector<AdamW::Range> AdamW::KeptOf(const std::vector<Range>& ranges, const dist::Shards& shards) {
  std::vector<Range> kept;
  for (const Range& range : ranges) {
    for (const dist::Shards::Piece& piece : shards.Within(range.offset, range.size)) {
      if (piece.rank != shards.Rank()) continue;
      kept.push_back({piece.offset, piece.size, piece.kept, range.decays, range.lr_scale});
    }
  }
  return kept;
}

void AdamW::Step(dist::FlatParameters& parameters, double lr, double gradient_scale) {
  ++updates_;
  const auto t = static_cast<double>(updates_);
  AdamWScalars<double> u{};
  u.gradient_scale = gradient_scale;
  u.one_minus_beta1 = 1.0 - settings_.beta1;
  u.beta2 = settings_.beta2;
  u.one_minus_beta2 = 1.0 - settings_.beta2;
  u.correction2_sqrt = std::sqrt(1.0 - std::pow(settings_.beta2, t));
  u.eps = settings_.eps;
  const double correction1 = 1.0 - std::pow(settings_.beta1, t);

  const at::Tensor values = parameters.Values();
  const at::Tensor gradients = parameters.Gradients();
  const auto update = values.scalar_type() == at::kDouble ? UpdateOnCpu<double> : UpdateOnCpu<float>;
  for (const Range& range : ranges_) {
    const double range_lr = lr * range.lr_scale;
    u.step_size = range_lr / correction1;
    u.decay = range.decays ? 1.0 - range_lr * settings_.weight_decay : 1.0;
    const AdamWBuffers buffers{
        values.narrow(0, range.offset, range.size), gradients.narrow(0, range.offset, range.size),
        first_moment_.narrow(0, range.kept, range.size), second_moment_.narrow(0, range.kept, range.size)};
    if (values.is_cpu()) {
      update(buffers, u);
    } else if (!UpdateByKernel(buffers, u)) {
      UpdateByOperators(buffers, 0, range.size, u);
    }
  }
}

double GradientNorm(const dist::FlatParameters& parameters) {
  const at::Tensor gradients = parameters.Gradients();
  if (!gradients.is_cpu()) return at::linalg_vector_norm(gradients, 2, {}, false, at::kDouble).item<double>();
  double sum = 0.0;
  for (const auto& span : parameters.Spans()) sum += SquaresIn(gradients, span.offset, span.size);
  return std::sqrt(sum);
}

double GradientNorm(const dist::FlatParameters& parameters, const dist::Shards& shards,
                    dist::Collectives& collectives) {
  const at::Tensor gradients = parameters.Gradients();
  double sum = 0.0;
  if (gradients.is_cpu()) {
    for (const auto& piece : shards.Own()) sum += SquaresIn(gradients, piece.offset, piece.size);
  } else {
    std::vector<at::Tensor> norms;  // asked for once
    for (const auto& piece : shards.Own()) {
      norms.push_back(
          at::linalg_vector_norm(gradients.narrow(0, piece.offset, piece.size), 2, {}, false, at::kDouble));
    }
    if (!norms.empty()) sum = at::stack(norms).square().sum().item<double>();
  }
  collectives.AllReduceSum(std::span<double>(&sum, 1));
  return std::sqrt(sum);
}

double ClipScale(double norm, double max_norm) {
  if (max_norm <= 0.0) return 1.0;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

double Schedule::LearningRate(std::int64_t step) const {
  if (step < warmup_steps) return lr * static_cast<double>(step) / static_cast<double>(warmup_steps);
  if (kind == "constant") return lr;
  if (kind == "inverse_sqrt") {
    const std::int64_t timescale = warmup_steps > 0 ? warmup_steps : 10'000;
    const auto shifted = static_cast<double>(step + timescale - warmup_steps);
    return lr / std::sqrt(shifted / static_cast<double>(timescale));
  }
  const double progress = static_cast<double>(step - warmup_steps) /
                          static_cast<double>(std::max<std::int64_t>(1, total_steps - warmup_steps));
  if (kind == "linear") return lr * std::max(0.0, 1.0 - progress);
  const double wave = 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, progress)));
  if (kind == "cosine") return lr * wave;
  if (kind == "cosine_with_min_lr") return lr * (wave * (1.0 - min_lr_rate) + min_lr_rate);
  throw std::logic_error("schedule '" + kind + "' passed the recipe's check");
}

}  // namespace plural::trainer
