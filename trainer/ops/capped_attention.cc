#include "trainer/ops/capped_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "trainer/ops/part_scope.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kQueryBlockRows = 256;

// A block of query rows and its scores with all keys, which are fp32 at least.
struct QueryBlock {
  std::int64_t begin = 0, rows = 0;

  at::Tensor Rows(const at::Tensor& x) const { return x.narrow(2, begin, rows); }

  // softcap tanh(scale q k^T / softcap)
  at::Tensor Bounded(const at::Tensor& q, const at::Tensor& k, const host::ScoreTerms& terms) const {
    const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor product = at::matmul(Rows(q), k.transpose(2, 3)).to(wide);
    return product.mul_(terms.scale / terms.softcap).tanh_().mul_(terms.softcap);
  }

  at::Tensor Hide(const at::Tensor& logits, const at::Tensor& mask) const {
    if (mask.defined()) return logits + Rows(mask);
    const at::Tensor key = at::arange(logits.size(3), logits.options().dtype(at::kInt));
    return logits.masked_fill(key.unsqueeze(0) > key.narrow(0, begin, rows).unsqueeze(1),
                              -std::numeric_limits<double>::infinity());
  }
};

template <class Function>
void ForEachBlock(std::int64_t rows, const Function& function) {
  for (std::int64_t begin = 0; begin < rows; begin += kQueryBlockRows) {
    function(QueryBlock{begin, std::min(kQueryBlockRows, rows - begin)});
  }
}

class Capped : public torch::autograd::Function<Capped> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::optional<at::Tensor>& given_mask, double scale,
                            double softcap) {
    const at::Tensor mask = given_mask.value_or(at::Tensor());
    const host::ScoreTerms terms{scale, softcap};
    const at::Tensor out = at::empty(q.sizes(), q.options());
    const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor lse = at::empty({q.size(0), q.size(1), q.size(2), 1}, q.options().dtype(wide));
    ForEachBlock(q.size(2), [&](const QueryBlock& block) {
      const at::Tensor logits = block.Hide(block.Bounded(q, k, terms), mask);
      block.Rows(lse).copy_(at::logsumexp(logits, 3, true));
      const at::Tensor p = (logits - block.Rows(lse)).exp_();
      block.Rows(out).copy_(at::matmul(p.to(v.scalar_type()), v));
    });
    ctx->save_for_backward({q, k, v, mask, out, lse});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["softcap"] = softcap;
    return out;
  }

  // With z = bounded scores: dz = p (dp - sum of out dout), and 1 - (z / softcap)^2 is the slope of the
  // bound.
  static variable_list backward(AutogradContext* ctx, const variable_list& upstream) {
    const PartScope attention(Part::kAttention);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &mask = saved[3];
    const host::ScoreTerms terms{ctx->saved_data["scale"].toDouble(), ctx->saved_data["softcap"].toDouble()};
    const at::Tensor& dout = upstream[0];
    const at::Tensor delta = (saved[4] * dout).sum(3, true, saved[5].scalar_type());
    const at::Tensor dq = at::empty(q.sizes(), q.options());
    // Sums over blocks are wide; a block's product is rounded as k and v are.
    const auto wide = k.options().dtype(saved[5].scalar_type());
    const at::Tensor dk = at::zeros(k.sizes(), wide), dv = at::zeros(v.sizes(), wide);
    ForEachBlock(q.size(2), [&](const QueryBlock& block) {
      const at::Tensor z = block.Bounded(q, k, terms);
      const at::Tensor p = (block.Hide(z, mask) - block.Rows(saved[5])).exp_();
      const at::Tensor dp = at::matmul(block.Rows(dout), v.transpose(2, 3));
      const at::Tensor slope = 1.0 - (z / terms.softcap).square_();
      const at::Tensor ds = ((dp - block.Rows(delta)) * p * slope).mul_(terms.scale).to(q.scalar_type());
      dv.add_(at::matmul(p.to(v.scalar_type()).transpose(2, 3), block.Rows(dout)));
      dk.add_(at::matmul(ds.transpose(2, 3), block.Rows(q)));
      block.Rows(dq).copy_(at::matmul(ds, k));
    });
    return {dq, dk.to(k.scalar_type()), dv.to(v.scalar_type()), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor CappedAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& mask, const host::ScoreTerms& terms) {
  const auto given_mask = mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt;
  return Capped::apply(q, k, v, given_mask, terms.scale, terms.softcap);
}

}  // namespace plural::trainer
