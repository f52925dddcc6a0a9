#include "trainer/model/tile_multiply.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "trainer/model/tile_loops.h"
#include "trainer/model/tile_products.h"
#include "trainer/model/tree_tiles.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kSide = kBlockRows;  // rows and columns of a tile
// Of the sum's length: so many rows of a panel stay in the second-level cache.
constexpr std::int64_t kDepth = 2048;

template <class E>
constexpr bool kInPairs = std::is_same_v<E, c10::BFloat16>;

bool DenseRows(const at::Tensor& x) { return x.stride(1) == 1 || x.size(1) == 1; }

// Few sizes of tiles, so that few kernels are generated: 64, then a multiple of 16, then what is left.
std::int64_t TileSize(std::int64_t left) {
  if (left >= kSide) return kSide;
  return left >= kStripKeys ? left / kStripKeys * kStripKeys : left;
}

// A tile's row may be read up to an even depth: an odd one gets a column of zeros.
at::Tensor EvenDepth(const at::Tensor& a_MK) {
  if (a_MK.size(1) % 2 == 0) return a_MK;
  const at::Tensor padded = at::zeros({a_MK.size(0), a_MK.size(1) + 1}, a_MK.options());
  padded.narrow(1, 0, a_MK.size(1)).copy_(a_MK);
  return padded;
}

// The left matrix: its own rows, or of a transposed view copies of kSide columns each.
template <class E>
class Left {
 public:
  explicit Left(const at::Tensor& a_MK) : rows_(a_MK.size(0)), depth_(a_MK.size(1)) {
    if (DenseRows(a_MK)) {
      kept_ = kInPairs<E> ? EvenDepth(a_MK) : a_MK;
      return;
    }
    const E* columns = a_MK.const_data_ptr<E>();
    packed_.resize(static_cast<std::size_t>((depth_ + kSide - 1) / kSide * kSide * rows_));
    for (std::int64_t k = 0; k < depth_; k += kSide) {
      host::Transpose(columns + k * a_MK.stride(1), a_MK.stride(1), std::min(kSide, depth_ - k), rows_,
                      packed_.data() + k * rows_);
    }
  }
  // What a product takes of the depth, of which `left` is left.
  std::int64_t Depth(std::int64_t left) const {
    return packed_.empty() ? std::min(kDepth, left) : TileSize(left);
  }
  std::int64_t Stride() const { return packed_.empty() ? kept_.stride(0) : kSide; }
  const E* At(std::int64_t row, std::int64_t k) const {
    return packed_.empty() ? kept_.const_data_ptr<E>() + row * kept_.stride(0) + k
                           : packed_.data() + k / kSide * kSide * rows_ + row * kSide + k % kSide;
  }

 private:
  std::int64_t rows_, depth_;
  at::Tensor kept_;
  std::vector<E> packed_;
};

// Up to kSide columns of the right matrix, as TileProduct wants them.
template <class E>
class Panel {
 public:
  Panel(const at::Tensor& b_KN, std::int64_t column, std::int64_t columns) {
    const std::int64_t depth = b_KN.size(0);
    const E* values = b_KN.const_data_ptr<E>() + column * b_KN.stride(1);
    if (!DenseRows(b_KN)) {
      stride_ = kSide;
      Reserve(depth);
      host::PackColumns(values, b_KN.stride(1), columns, depth, packed_.data());
    } else if (kInPairs<E>) {
      stride_ = (columns + kStripKeys - 1) / kStripKeys * kStripKeys;
      Reserve(depth);
      host::PackRows(values, b_KN.stride(0), depth, columns, packed_.data());
    } else {
      stride_ = b_KN.stride(0);
      data_ = values;
    }
  }
  std::int64_t Stride() const { return stride_; }
  const E* At(std::int64_t k) const { return data_ + k * stride_; }  // of bf16: k even

 private:
  void Reserve(std::int64_t depth) {
    packed_.resize(static_cast<std::size_t>((depth + kStripKeys - 1) / kStripKeys * kStripKeys * stride_));
    data_ = packed_.data();
  }

  std::int64_t stride_ = 0;
  const E* data_ = nullptr;
  std::vector<E> packed_;
};

template <class E>
struct Operand {
  Left<E> left;
  at::Tensor b_KN;
};

template <class E>
void MultiplyPanel(const std::vector<Operand<E>>& operands, std::int64_t column, std::int64_t begin,
                   std::int64_t end, const at::Tensor& y_MN, bool add) {
  const std::int64_t columns = std::min(kSide, y_MN.size(1) - column);
  std::vector<Panel<E>> panels;
  for (const Operand<E>& operand : operands) panels.emplace_back(operand.b_KN, column, columns);
  for (std::int64_t row = begin; row < end;) {
    const std::int64_t rows = TileSize(end - row);
    host::TileShape shape = {.rows = rows, .columns = columns, .c_stride = y_MN.stride(0), .add = add};
    for (std::size_t o = 0; o < operands.size(); ++o) {
      const std::int64_t depth = operands[o].b_KN.size(0);
      shape.a_stride = operands[o].left.Stride();
      shape.b_stride = panels[o].Stride();
      for (std::int64_t k = 0; k < depth;) {
        const std::int64_t taken = operands[o].left.Depth(depth - k);
        shape.depth = kInPairs<E> ? taken + taken % 2 : taken;
        host::TileProduct(operands[o].left.At(row, k), panels[o].At(k), shape,
                          y_MN.mutable_data_ptr<float>() + row * y_MN.stride(0) + column);
        shape.add = true;
        k += taken;
      }
    }
    row += rows;
  }
}

}  // namespace

void TileMultiply(const std::vector<Factors>& pairs, const at::Tensor& y_MN, bool add) {
  RECORD_FUNCTION("plural::TileMultiply", c10::ArrayRef<const c10::IValue>());
  const std::int64_t rows = y_MN.size(0), panels = (y_MN.size(1) + kSide - 1) / kSide;
  const auto dtype = pairs[0].a_MK.scalar_type();
  const auto multiply = [&]<class E>(E) {
    std::vector<Operand<E>> operands;
    for (const Factors& pair : pairs) operands.push_back({Left<E>(pair.a_MK), pair.b_KN});
    const auto share = [&](std::int64_t first, std::int64_t last, std::int64_t begin, std::int64_t end) {
      for (std::int64_t panel = first; panel < last; ++panel) {
        MultiplyPanel<E>(operands, panel * kSide, begin, end, y_MN, add);
      }
      host::ReleaseTileRegisters();
    };
    if (panels >= at::get_num_threads()) {
      at::parallel_for(0, panels, 1,
                       [&](std::int64_t first, std::int64_t last) { share(first, last, 0, rows); });
    } else {  // few columns: each thread packs them for its rows
      at::parallel_for(0, (rows + kSide - 1) / kSide, 1, [&](std::int64_t first, std::int64_t last) {
        share(0, panels, first * kSide, std::min(rows, last * kSide));
      });
    }
  };
  dtype == at::kBFloat16 ? multiply(c10::BFloat16{}) : multiply(float{});
}

}  // namespace plural::trainer
