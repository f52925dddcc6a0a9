#include "trainer/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "trainer/kernels/host_loops.h"
#include "trainer/kernels/logit_loops.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kVector = 16;        // blocks are whole vectors
constexpr std::int64_t kWeightBlock = 256;  // weights between two partial sums
constexpr std::int64_t kMaximaPerToken = 4;
constexpr std::int64_t kFirstTopP = 64;  // tokens tried first for top-p, then 8 times as many

template <typename T>
std::int64_t Size(const T& container) {
  return static_cast<std::int64_t>(container.size());
}

// The k-th largest of `values`, which are reordered.
template <typename Real>
Real KthLargest(std::vector<Real>& values, std::int64_t k) {
  std::nth_element(values.begin(), values.begin() + (k - 1), values.end(), std::greater<>());
  return values[static_cast<std::size_t>(k - 1)];
}

}  // namespace

template <typename Real>
void TokenSampler<Real>::Read(std::span<const Real> logits, const SamplingSettings& settings,
                              std::span<const data::Token> excluded) {
  settings_ = settings;
  logits_ = logits;
  log_sum_ = host::LseOfRow(logits.data(), Size(logits));
  if (!excluded.empty()) {
    masked_.assign(logits.begin(), logits.end());
    for (const data::Token token : excluded) {
      masked_[static_cast<std::size_t>(token)] = -std::numeric_limits<Real>::infinity();
    }
    logits = masked_;
  }
  Real top = 0;
  host::BlockMaxima(logits.data(), Size(logits), Size(logits), &top);
  top_ = top;
  tokens_.clear();
  const bool filters_k = settings_.top_k > 0 && settings_.top_k < Size(logits);
  if (settings_.temperature == 0.0) {
    tokens_.push_back(
        static_cast<data::Token>(std::find(logits.begin(), logits.end(), top) - logits.begin()));
    token_weights_.assign(1, 1.0);
  } else if (filters_k) {
    TakeTop(logits, settings_.top_k);
    Weigh(logits);
    if (settings_.top_p < 1.0) {
      CutTopP(std::accumulate(token_weights_.begin(), token_weights_.end(), 0.0));
    }
  } else if (settings_.top_p < 1.0) {
    TakeTopP(logits);
  } else {
    TakeAll(logits);
  }
}

template <typename Real>
void TokenSampler<Real>::TakeAll(std::span<const Real> logits) {
  weights_.resize(logits.size());
  block_sums_.resize((logits.size() + kWeightBlock - 1) / kWeightBlock);
  host::TemperedWeights(logits.data(), Size(logits), top_, settings_.temperature, kWeightBlock,
                        weights_.data(), block_sums_.data());
}

// Fills tokens_ with those whose logits are at least the count-th largest.
template <typename Real>
void TokenSampler<Real>::TakeTop(std::span<const Real> logits, std::int64_t count) {
  const std::int64_t size = Size(logits);
  // At least `count` blocks have a maximum of at least their maxima's count-th largest, and so at least
  // `count` tokens a logit: few candidates are left, in few blocks.
  const std::int64_t block = std::max(kVector, size / (kMaximaPerToken * count) / kVector * kVector);
  std::vector<Real> maxima(static_cast<std::size_t>((size + block - 1) / block));
  host::BlockMaxima(logits.data(), size, block, maxima.data());
  Real edge = -std::numeric_limits<Real>::infinity();
  scratch_ = maxima;
  if (count <= Size(scratch_)) edge = KthLargest(scratch_, count);
  scratch_.clear();
  tokens_.clear();
  for (std::int64_t b = 0; b < Size(maxima); ++b) {
    if (maxima[static_cast<std::size_t>(b)] < edge) continue;
    const std::int64_t end = std::min(size, (b + 1) * block);
    for (std::int64_t i = b * block; i < end; ++i) {
      if (logits[static_cast<std::size_t>(i)] >= edge) {
        tokens_.push_back(static_cast<data::Token>(i));
        scratch_.push_back(logits[static_cast<std::size_t>(i)]);
      }
    }
  }
  if (Size(tokens_) <= count) return;
  edge = KthLargest(scratch_, count);
  std::erase_if(tokens_, [&](data::Token token) { return logits[static_cast<std::size_t>(token)] < edge; });
}

// Keeps the smallest set of most likely tokens whose mass reaches top_p.
template <typename Real>
void TokenSampler<Real>::TakeTopP(std::span<const Real> logits) {
  TakeAll(logits);
  const double total = std::accumulate(block_sums_.begin(), block_sums_.end(), 0.0);
  for (std::int64_t count = kFirstTopP;; count *= 8) {
    TakeTop(logits, std::min(count, Size(logits)));
    Weigh(logits);
    const double mass = std::accumulate(token_weights_.begin(), token_weights_.end(), 0.0);
    if (mass >= settings_.top_p * total || count >= Size(logits)) break;
  }
  CutTopP(total);
}

template <typename Real>
void TokenSampler<Real>::Weigh(std::span<const Real> logits) {
  token_weights_.clear();
  for (const data::Token token : tokens_) {
    const double below = static_cast<double>(logits[static_cast<std::size_t>(token)]) - top_;
    token_weights_.push_back(std::exp(below / settings_.temperature));
  }
}

// `total`: the mass that top_p is a share of. Keeps at least one token.
template <typename Real>
void TokenSampler<Real>::CutTopP(double total) {
  std::vector<std::size_t> order(tokens_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Stable, so that equal tokens are kept in order of id on every platform.
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return token_weights_[a] > token_weights_[b]; });
  double mass = 0.0;
  for (const std::size_t token : order) {
    const double weight = token_weights_[token];
    if (mass >= settings_.top_p * total && mass > 0.0) token_weights_[token] = 0.0;
    mass += weight;
  }
}

template <typename Real>
data::Token TokenSampler<Real>::Draw(double uniform) const {
  if (!tokens_.empty()) {
    const double total = std::accumulate(token_weights_.begin(), token_weights_.end(), 0.0);
    const double threshold = uniform * total;
    double cumulative = 0.0;
    std::size_t last = 0;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (token_weights_[i] == 0.0) continue;
      last = i;
      cumulative += token_weights_[i];
      if (cumulative > threshold) break;
    }
    return tokens_[last];  // also where rounding left the threshold at the very end
  }
  const double threshold = uniform * std::accumulate(block_sums_.begin(), block_sums_.end(), 0.0);
  // The first block that passes the threshold, or the last one with any weight.
  std::size_t block = 0;
  double before = 0.0, cumulative = 0.0;
  for (std::size_t b = 0; b < block_sums_.size() && !(cumulative > threshold); ++b) {
    if (block_sums_[b] == 0.0) continue;
    block = b;
    before = cumulative;
    cumulative += block_sums_[b];
  }
  cumulative = before;
  const std::size_t begin = block * kWeightBlock, end = std::min(weights_.size(), begin + kWeightBlock);
  std::size_t last = begin;
  for (std::size_t i = begin; i < end && !(cumulative > threshold); ++i) {
    if (weights_[i] == 0) continue;
    last = i;
    cumulative += weights_[i];
  }
  return static_cast<data::Token>(last);
}

template <typename Real>
double TokenSampler<Real>::LogProbability(data::Token token) const {
  return static_cast<double>(logits_[static_cast<std::size_t>(token)]) - log_sum_;
}

template class TokenSampler<float>;
template class TokenSampler<double>;

}  // namespace plural::trainer
