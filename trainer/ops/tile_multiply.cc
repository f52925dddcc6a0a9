#include "trainer/ops/tile_multiply.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "trainer/kernels/tile_loops.h"
#include "trainer/kernels/tile_products.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kSide = host::kTileSide;
// Depth of a product: this many rows of a panel stay in the second-level cache.
constexpr std::int64_t kDepth = 2048;

template <class E>
constexpr bool kInPairs = std::is_same_v<E, c10::BFloat16>;

bool DenseRows(const at::Tensor& x) { return x.stride(1) == 1 && x.stride(0) >= x.size(1); }
bool DenseColumns(const at::Tensor& x) { return x.stride(0) == 1 && x.stride(1) >= x.size(0); }

// x itself if rows or columns are dense; a copy if it is expanded, or has gaps in both directions.
at::Tensor Dense(const at::Tensor& x) {
  return DenseRows(x) || DenseColumns(x) ? x : x.clone(at::MemoryFormat::Contiguous);
}

// Tiles have few sizes, since the kernel generated for each takes a quarter of a megabyte.
std::int64_t TileSize(std::int64_t left) { return left >= kSide ? kSide : std::min(host::kStrip, left); }

// Rows of a tile may be read up to an even depth, so an odd one gets a column of zeros.
at::Tensor EvenDepth(const at::Tensor& a_MK) {
  if (a_MK.size(1) % 2 == 0) return a_MK;
  const at::Tensor padded = at::zeros({a_MK.size(0), a_MK.size(1) + 1}, a_MK.options());
  padded.narrow(1, 0, a_MK.size(1)).copy_(a_MK);
  return padded;
}

// The left matrix: its own rows, or for a transposed view copies of kSide columns each.
template <class E>
class Left {
 public:
  explicit Left(const at::Tensor& a_MK) : rows_(a_MK.size(0)), depth_(a_MK.size(1)) {
    if (DenseRows(a_MK)) {
      kept_ = kInPairs<E> ? EvenDepth(a_MK) : a_MK;
      return;
    }
    const E* columns = a_MK.const_data_ptr<E>();
    packed_ = std::make_unique_for_overwrite<E[]>(
        static_cast<std::size_t>((depth_ + kSide - 1) / kSide * kSide * rows_));
    for (std::int64_t k = 0; k < depth_; k += kSide) {
      host::Transpose(columns + k * a_MK.stride(1), a_MK.stride(1), std::min(kSide, depth_ - k), rows_,
                      packed_.get() + k * rows_);
    }
  }
  // The depth of a product, `left` being what is left. A packed strip is padded with zeros.
  std::int64_t Depth(std::int64_t left) const {
    return !packed_ ? std::min(kDepth, left) : left >= kSide ? kSide : host::kStrip;
  }
  std::int64_t Stride() const { return !packed_ ? kept_.stride(0) : kSide; }
  const E* At(std::int64_t row, std::int64_t k) const {
    return !packed_ ? kept_.const_data_ptr<E>() + row * kept_.stride(0) + k
                    : packed_.get() + k / kSide * kSide * rows_ + row * kSide + k % kSide;
  }

 private:
  std::int64_t rows_, depth_;
  at::Tensor kept_;
  std::unique_ptr<E[]> packed_;
};

// Up to kSide columns of the right matrix at a time, in the layout that TileProduct takes.
template <class E>
class Panel {
 public:
  explicit Panel(const at::Tensor& b_KN) : b_KN_(b_KN), packs_(kInPairs<E> || !DenseRows(b_KN)) {
    const std::int64_t rows = packs_ ? host::WholeStrips(b_KN.size(0)) : host::kStrip;
    packed_ = std::make_unique_for_overwrite<E[]>(static_cast<std::size_t>(rows * kSide));
  }
  void Take(std::int64_t column, std::int64_t columns) {
    const std::int64_t depth = b_KN_.size(0);
    columns_ = host::WholeStrips(columns);
    const E* values = b_KN_.const_data_ptr<E>() + column * b_KN_.stride(1);
    data_ = packs_ ? packed_.get() : values;
    if (!packs_) {
      stride_ = b_KN_.stride(0);
      const std::int64_t last_strip = depth / host::kStrip * host::kStrip;
      host::PackRows(values + last_strip * stride_, stride_, depth - last_strip, columns, packed_.get());
    } else if (!DenseRows(b_KN_)) {
      stride_ = kSide;
      host::PackColumns(values, b_KN_.stride(1), columns, depth, packed_.get());
      const std::int64_t written = kInPairs<E> ? depth + depth % 2 : depth;
      std::fill(packed_.get() + written * kSide, packed_.get() + host::WholeStrips(depth) * kSide, E(0));
    } else {
      stride_ = host::WholeStrips(columns);
      host::PackRows(values, b_KN_.stride(0), depth, columns, packed_.get());
    }
  }
  // `depth` rows from k on (k is even for bf16), and their stride. Zeros follow the last row up to
  // a whole strip; of a matrix that is read in place, only the last strip is a copy.
  std::pair<const E*, std::int64_t> At(std::int64_t k, std::int64_t depth) const {
    const bool behind = !packs_ && k + depth > b_KN_.size(0);
    return behind ? std::pair<const E*, std::int64_t>{packed_.get(), columns_}
                  : std::pair{data_ + k * stride_, stride_};
  }

 private:
  at::Tensor b_KN_;
  bool packs_;
  std::int64_t stride_ = 0, columns_ = 0;
  const E* data_ = nullptr;
  std::unique_ptr<E[]> packed_;
};

template <class E>
struct Operand {
  Left<E> left;
  at::Tensor b_KN;
};

template <class E>
void MultiplyPanel(const std::vector<Operand<E>>& operands, std::vector<Panel<E>>& panels,
                   std::int64_t column, std::int64_t begin, std::int64_t end, const at::Tensor& y_MN,
                   bool add) {
  const std::int64_t columns = std::min(kSide, y_MN.size(1) - column);
  for (Panel<E>& panel : panels) panel.Take(column, columns);
  for (std::int64_t row = begin; row < end;) {
    std::int64_t rows = TileSize(end - row);
    // The last rows are computed together with some before them, unless those would be added twice.
    if (!add && rows < host::kStrip && end - begin >= host::kStrip) {
      rows = host::kStrip;
      row = end - rows;
    }
    host::TileShape shape = {.rows = rows, .columns = columns, .c_stride = y_MN.stride(0), .add = add};
    for (std::size_t o = 0; o < operands.size(); ++o) {
      const std::int64_t depth = operands[o].b_KN.size(0);
      shape.a_stride = operands[o].left.Stride();
      for (std::int64_t k = 0; k < depth;) {
        shape.depth = operands[o].left.Depth(depth - k);
        if (kInPairs<E>) shape.depth += shape.depth % 2;
        const auto [values, stride] = panels[o].At(k, shape.depth);
        shape.b_stride = stride;
        host::TileProduct(operands[o].left.At(row, k), values, shape,
                          y_MN.mutable_data_ptr<float>() + row * y_MN.stride(0) + column);
        shape.add = true;
        k += shape.depth;
      }
    }
    row += rows;
  }
}

}  // namespace

void TileMultiply(const std::vector<Factors>& pairs, const at::Tensor& y_MN, bool add) {
  RECORD_FUNCTION("plural::TileMultiply", c10::ArrayRef<const c10::IValue>());
  if (!add &&
      std::all_of(pairs.begin(), pairs.end(), [](const Factors& pair) { return pair.b_KN.size(0) == 0; })) {
    at::Tensor(y_MN).zero_();  // an empty sum
    return;
  }
  const std::int64_t rows = y_MN.size(0), panels = (y_MN.size(1) + kSide - 1) / kSide;
  const auto dtype = pairs[0].a_MK.scalar_type();
  const auto multiply = [&]<class E>(E) {
    std::vector<Operand<E>> operands;
    for (const Factors& pair : pairs) operands.push_back({Left<E>(Dense(pair.a_MK)), Dense(pair.b_KN)});
    const auto share = [&](std::int64_t first, std::int64_t last, std::int64_t begin, std::int64_t end) {
      std::vector<Panel<E>> panels_of_thread;
      for (const Operand<E>& operand : operands) panels_of_thread.emplace_back(operand.b_KN);
      for (std::int64_t panel = first; panel < last; ++panel) {
        MultiplyPanel<E>(operands, panels_of_thread, panel * kSide, begin, end, y_MN, add);
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
