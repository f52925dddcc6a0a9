#include "trainer/ops/tree_attention.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "trainer/kernels/dtypes.h"
#include "trainer/kernels/tile_loops.h"
#include "trainer/kernels/tile_products.h"
#include "trainer/ops/part_scope.h"
#include "trainer/ops/tree_tiles.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct TreePlan : torch::CustomClassHolder {
  TreeTiles tiles;
  host::ScoreTerms terms;
};

// A tensor [N, heads, D] whose heads are dense.
template <class E>
struct Heads {
  E* data = nullptr;
  std::int64_t row_stride = 0, head_stride = 0;

  E* At(std::int64_t row, std::int64_t head) const { return data + row * row_stride + head * head_stride; }
};
template <class E>
Heads<const E> Read(const at::Tensor& x_NHD) {
  return {x_NHD.const_data_ptr<E>(), x_NHD.stride(0), x_NHD.stride(1)};
}
template <class E>
Heads<E> Write(const at::Tensor& x_NHD) {
  return {x_NHD.mutable_data_ptr<E>(), x_NHD.stride(0), x_NHD.stride(1)};
}

struct Shape {
  std::int64_t rows = 0, heads = 0, shared_heads = 0, dim = 0;

  Shape(const at::Tensor& q_NHD, const at::Tensor& k_NGD)
      : rows(q_NHD.size(0)), heads(q_NHD.size(1)), shared_heads(k_NGD.size(1)), dim(q_NHD.size(2)) {}
  std::int64_t Sharing() const { return heads / shared_heads; }  // query heads per key head
};

// One key head's rows as columns, in blocks of kBlockRows: [blocks, D, kBlockRows].
template <class E>
class Columns {
 public:
  Columns(const Heads<const E>& x, std::int64_t head, const Shape& shape) : dim_(shape.dim) {
    const std::int64_t blocks = (shape.rows + kBlockRows - 1) / kBlockRows;
    values_ = std::make_unique_for_overwrite<E[]>(static_cast<std::size_t>(blocks * dim_ * kBlockRows));
    for (std::int64_t row = 0; row < shape.rows; row += kBlockRows) {
      host::Transpose(x.At(row, head), x.row_stride, std::min(kBlockRows, shape.rows - row), dim_,
                      values_.get() + row * dim_);
    }
  }
  const E* At(std::int64_t row) const {
    return values_.get() + row / kBlockRows * kBlockRows * dim_ + row % kBlockRows;
  }

 private:
  std::int64_t dim_;
  std::unique_ptr<E[]> values_;
};

// Values of a packed operand per row of its tile: two where values are in pairs.
template <class E>
constexpr std::int64_t kPacked = std::is_same_v<E, c10::BFloat16> ? 2 : 1;

host::TileView ViewOf(const TreeTiles& tree, const Tile& tile) {
  return {.keys = tile.keys,
          .rows = tile.rows,
          .mask = tile.mask < 0 ? nullptr : tree.mask.data() + tile.mask * kBlockRows + tile.row};
}

// A tile's keys [keys, D], `stride` apart, times its rows as columns: scores [keys, kBlockRows].
host::TileShape ToScores(const Tile& tile, std::int64_t dim, std::int64_t stride) {
  return {.rows = tile.keys,
          .columns = tile.rows,
          .depth = dim,
          .a_stride = stride,
          .b_stride = kBlockRows,
          .c_stride = kBlockRows};
}

// Keys as columns [D, keys] times scores, added to rows as columns [D, kBlockRows].
host::TileShape ToColumns(const Tile& tile, std::int64_t dim) {
  return {.rows = dim,
          .columns = tile.rows,
          .depth = host::WholeStrips(tile.keys),
          .a_stride = kBlockRows,
          .b_stride = kBlockRows,
          .c_stride = kBlockRows,
          .add = true};
}

template <class E>
struct AttentionInput {
  Heads<const E> q, k, v;
};

// Forward of the query heads that share key head `shared`. lse_HN: log sum exp of each row's logits.
template <class E>
void ForwardOfSharedHead(const TreePlan& plan, const AttentionInput<E>& in, const Shape& shape,
                         std::int64_t shared, const Heads<E>& out, host::Computed<E>* lse_HN) {
  using T = host::Computed<E>;
  const std::int64_t dim = shape.dim;
  const Columns<E> v_columns(in.v, shared, shape);
  std::vector<E> q(static_cast<std::size_t>(dim * kBlockRows));
  std::vector<E> p(static_cast<std::size_t>(kBlockRows * kBlockRows));
  std::vector<T> scores, out_columns(static_cast<std::size_t>(dim * kBlockRows));
  for (const RowBlock& block : plan.tiles.blocks) {
    scores.resize(block.tiles.size() * kBlockRows * kBlockRows);
    for (std::int64_t head = shared * shape.Sharing(); head < (shared + 1) * shape.Sharing(); ++head) {
      host::PackColumns(in.q.At(block.begin, head), in.q.row_stride, block.rows, dim, q.data());
      std::array<T, kBlockRows> largest;
      largest.fill(-std::numeric_limits<T>::infinity());
      T* s = scores.data();
      for (const Tile& tile : block.tiles) {
        host::TileProduct(in.k.At(tile.key, shared), q.data() + kPacked<E> * tile.row,
                          ToScores(tile, dim, in.k.row_stride), s + tile.row);
        host::LogitsOfScores(s + tile.row, ViewOf(plan.tiles, tile), plan.terms, largest.data() + tile.row);
        s += kBlockRows * kBlockRows;
      }
      std::array<double, kBlockRows> sums{};
      std::fill(out_columns.begin(), out_columns.end(), T{0});
      s = scores.data();
      for (const Tile& tile : block.tiles) {
        host::ExpOfLogits(s + tile.row, ViewOf(plan.tiles, tile), largest.data() + tile.row,
                          sums.data() + tile.row, p.data() + kPacked<E> * tile.row);
        host::TileProduct(v_columns.At(tile.key), p.data() + kPacked<E> * tile.row, ToColumns(tile, dim),
                          out_columns.data() + tile.row);
        s += kBlockRows * kBlockRows;
      }
      std::array<T, kBlockRows> inverse;
      for (std::int64_t r = 0; r < block.rows; ++r) {
        const double sum = sums[static_cast<std::size_t>(r)];
        inverse[static_cast<std::size_t>(r)] = static_cast<T>(1.0 / sum);
        lse_HN[head * shape.rows + block.begin + r] =
            static_cast<T>(static_cast<double>(largest[static_cast<std::size_t>(r)]) + std::log(sum));
      }
      host::StoreColumns(out_columns.data(), inverse.data(), block.rows, dim, out.At(block.begin, head),
                         out.row_stride);
    }
  }
}

template <class E>
struct AttentionGradient {
  Heads<const E> out, dout;
  Heads<E> dq;
  Heads<host::Computed<E>> dk, dv;  // added to
};

template <class E>
void BackwardOfSharedHead(const TreePlan& plan, const AttentionInput<E>& in, const Shape& shape,
                          std::int64_t shared, const host::Computed<E>* lse_HN,
                          const AttentionGradient<E>& gradient) {
  using T = host::Computed<E>;
  const std::int64_t dim = shape.dim;
  const auto block_values = static_cast<std::size_t>(dim * kBlockRows);
  constexpr std::size_t kTileValues = kBlockRows * kBlockRows;
  const Columns<E> k_columns(in.k, shared, shape);
  const std::int64_t padded_dim = host::WholeStrips(dim);
  std::vector<E> q(block_values), dout(block_values);
  std::vector<E> q_rows(static_cast<std::size_t>(padded_dim * kBlockRows)), dout_rows(q_rows.size());
  std::vector<T> dq_columns(block_values), scores(kTileValues), dp(kTileValues);
  // fp32 and fp64 are operands of the next products in place.
  constexpr bool kInPlace = std::is_same_v<E, T>;
  std::vector<E> rounded(kInPlace ? 0 : 3 * kTileValues);
  E *p, *ds, *ds_pairs;
  if constexpr (kInPlace) {
    p = scores.data(), ds = ds_pairs = dp.data();
  } else {
    p = rounded.data(), ds = p + kTileValues, ds_pairs = ds + kTileValues;
  }
  std::array<T, kBlockRows> ones;
  ones.fill(T{1});
  for (const RowBlock& block : plan.tiles.blocks) {
    for (std::int64_t head = shared * shape.Sharing(); head < (shared + 1) * shape.Sharing(); ++head) {
      const E* q_of_block = in.q.At(block.begin, head);
      const E* dout_of_block = gradient.dout.At(block.begin, head);
      host::PackColumns(q_of_block, in.q.row_stride, block.rows, dim, q.data());
      host::PackRows(q_of_block, in.q.row_stride, block.rows, dim, q_rows.data());
      host::PackColumns(dout_of_block, gradient.dout.row_stride, block.rows, dim, dout.data());
      host::PackRows(dout_of_block, gradient.dout.row_stride, block.rows, dim, dout_rows.data());
      std::array<T, kBlockRows> delta{}, lse{};  // 0 after the last row
      host::RowDots(gradient.out.At(block.begin, head), dout_of_block, gradient.dout.row_stride, block.rows,
                    dim, delta.data());
      std::copy_n(lse_HN + head * shape.rows + block.begin, block.rows, lse.begin());
      std::fill(dq_columns.begin(), dq_columns.end(), T{0});
      for (const Tile& tile : block.tiles) {
        host::TileProduct(in.k.At(tile.key, shared), q.data() + kPacked<E> * tile.row,
                          ToScores(tile, dim, in.k.row_stride), scores.data() + tile.row);
        host::TileProduct(in.v.At(tile.key, shared), dout.data() + kPacked<E> * tile.row,
                          ToScores(tile, dim, in.v.row_stride), dp.data() + tile.row);
        host::ScoreGradient(scores.data() + tile.row, dp.data() + tile.row, ViewOf(plan.tiles, tile),
                            lse.data() + tile.row, delta.data() + tile.row, plan.terms, p + tile.row,
                            ds + tile.row, ds_pairs + kPacked<E> * tile.row);
        const host::TileShape to_keys = {.rows = tile.keys,
                                         .columns = dim,
                                         .depth = tile.rows,
                                         .a_stride = kBlockRows,
                                         .b_stride = padded_dim,
                                         .c_stride = gradient.dk.row_stride,
                                         .add = true};
        host::TileProduct(p + tile.row, dout_rows.data() + tile.row * padded_dim, to_keys,
                          gradient.dv.At(tile.key, shared));
        host::TileProduct(ds + tile.row, q_rows.data() + tile.row * padded_dim, to_keys,
                          gradient.dk.At(tile.key, shared));
        host::TileProduct(k_columns.At(tile.key), ds_pairs + kPacked<E> * tile.row, ToColumns(tile, dim),
                          dq_columns.data() + tile.row);
      }
      host::StoreColumns(dq_columns.data(), ones.data(), block.rows, dim, gradient.dq.At(block.begin, head),
                         gradient.dq.row_stride);
    }
  }
}

at::Tensor HeadsDense(const at::Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

class BlockAttention : public torch::autograd::Function<BlockAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const c10::intrusive_ptr<TreePlan>& plan) {
    const PartScope attention(Part::kAttention);
    const at::Tensor q_NHD = HeadsDense(q), k_NGD = HeadsDense(k), v_NGD = HeadsDense(v);
    const Shape shape(q_NHD, k_NGD);
    const at::Tensor out_NHD = at::empty(q_NHD.sizes(), q_NHD.options().requires_grad(false));
    const at::Tensor lse_HN = at::empty({shape.heads, shape.rows}, Wide(q_NHD));
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, q_NHD.scalar_type(), "tree attention", [&] {
      const AttentionInput<scalar_t> in = {Read<scalar_t>(q_NHD), Read<scalar_t>(k_NGD),
                                           Read<scalar_t>(v_NGD)};
      EachSharedHead(shape, [&](std::int64_t shared) {
        ForwardOfSharedHead<scalar_t>(*plan, in, shape, shared, Write<scalar_t>(out_NHD),
                                      lse_HN.mutable_data_ptr<host::Computed<scalar_t>>());
      });
    });
    ctx->save_for_backward({q_NHD, k_NGD, v_NGD, out_NHD, lse_HN});
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return out_NHD;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& upstream) {
    const PartScope attention(Part::kAttention);
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const TreePlan&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &q_NHD = saved[0], &k_NGD = saved[1], &v_NGD = saved[2], &out_NHD = saved[3];
    const at::Tensor& lse_HN = saved[4];
    const Shape shape(q_NHD, k_NGD);
    const at::Tensor dout_NHD = upstream[0].contiguous();
    const at::Tensor dq_NHD = at::empty(q_NHD.sizes(), q_NHD.options().requires_grad(false));
    const at::Tensor dk_NGD = at::zeros(k_NGD.sizes(), Wide(q_NHD));
    const at::Tensor dv_NGD = at::zeros(v_NGD.sizes(), Wide(q_NHD));
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, q_NHD.scalar_type(), "tree attention", [&] {
      using T = host::Computed<scalar_t>;
      const AttentionInput<scalar_t> in = {Read<scalar_t>(q_NHD), Read<scalar_t>(k_NGD),
                                           Read<scalar_t>(v_NGD)};
      const AttentionGradient<scalar_t> gradient = {Read<scalar_t>(out_NHD), Read<scalar_t>(dout_NHD),
                                                    Write<scalar_t>(dq_NHD), Write<T>(dk_NGD),
                                                    Write<T>(dv_NGD)};
      EachSharedHead(shape, [&](std::int64_t shared) {
        BackwardOfSharedHead<scalar_t>(plan, in, shape, shared, lse_HN.const_data_ptr<T>(), gradient);
      });
    });
    return {dq_NHD, dk_NGD.to(k_NGD.scalar_type()), dv_NGD.to(v_NGD.scalar_type()), at::Tensor()};
  }

 private:
  // With bf16, scores, sums of probabilities and sums over rows are fp32.
  static at::TensorOptions Wide(const at::Tensor& x) {
    return x.options().dtype(ComputedIn(x.scalar_type())).requires_grad(false);
  }

  // Each thread adds up its own key heads' gradients, in one order whatever the number of threads.
  template <class Function>
  static void EachSharedHead(const Shape& shape, const Function& function) {
    at::parallel_for(0, shape.shared_heads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t shared = begin; shared < end; ++shared) function(shared);
      host::ReleaseTileRegisters();
    });
  }
};

class TreeAttention : public Attention {
 public:
  // `plans`: one per window.
  TreeAttention(std::vector<c10::intrusive_ptr<TreePlan>> plans, std::vector<std::size_t> plan_of_layer)
      : plans_(std::move(plans)), plan_of_layer_(std::move(plan_of_layer)) {}

  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    const auto& plan = plans_[plan_of_layer_.at(static_cast<std::size_t>(layer))];
    return BlockAttention::apply(q_NHD, k_NGD, v_NGD, plan).view({q_NHD.size(0), -1});
  }

 private:
  std::vector<c10::intrusive_ptr<TreePlan>> plans_;
  std::vector<std::size_t> plan_of_layer_;
};

}  // namespace

std::unique_ptr<Attention> MakeTreeAttention(const data::RowPass& pass, const AttentionTerms& terms) {
  LayerWindows layers = WindowsOf(pass, terms);
  std::vector<c10::intrusive_ptr<TreePlan>> plans;
  for (const std::int64_t window : layers.windows) {
    const auto& plan = plans.emplace_back(c10::make_intrusive<TreePlan>());
    plan->tiles = CutIntoTiles(pass, window);
    plan->terms = {.scale = terms.scale, .softcap = terms.softcap};
  }
  return std::make_unique<TreeAttention>(std::move(plans), std::move(layers.of_layer));
}

}  // namespace plural::trainer
