#include "trainer/generate/key_value_cache.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <span>
#include <utility>

#include "data/rows.h"
#include "data/tree.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

// Passes a tree's attention through and keeps every layer's keys and values.
class CapturingAttention : public Attention {
 public:
  CapturingAttention(std::unique_ptr<Attention> inner, Prefill& prefill)
      : inner_(std::move(inner)), prefill_(prefill) {}
  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    prefill_.k_NGD.push_back(k_NGD);
    prefill_.v_NGD.push_back(v_NGD);
    return (*inner_)(layer, q_NHD, k_NGD, v_NGD);
  }

 private:
  std::unique_ptr<Attention> inner_;
  Prefill& prefill_;
};

// Slots that the pool starts with for each response; it doubles when they are used up.
constexpr std::int64_t kSlotsPerResponse = 16;

at::Tensor Indices(const std::vector<std::int64_t>& values, at::Device device) {
  return ToDevice(values, at::kLong, device);
}

}  // namespace

Prefill RunPrefill(const Decoder& model, const data::Group& group, const std::vector<int>& tails) {
  std::vector<std::vector<data::Token>> sequences;
  for (const int tail : tails) {
    std::vector<data::Token>& tokens = sequences.emplace_back(group.prompt_tokens);
    const auto& rest = group.tails.at(static_cast<std::size_t>(tail));
    tokens.insert(tokens.end(), rest.begin(), rest.end());
  }
  data::FedTree fed = data::FeedAll(sequences);
  data::RowPass pass;
  pass.length = pass.rows = fed.tree.Rows();
  pass.token = std::move(fed.tree.token);
  pass.position = std::move(fed.tree.position);
  pass.end = std::move(fed.tree.end);

  const c10::NoGradGuard no_grad;
  Prefill prefill;
  CapturingAttention attention(
      MakePassAttention(pass, model.Config().Attention(), model.DType(), model.Device()), prefill);
  const at::Tensor token = ToDevice(pass.token, at::kInt, model.Device()).to(at::kLong);
  const at::Tensor position = ToDevice(pass.position, at::kInt, model.Device()).to(at::kLong);

  // The last layer computes only the rows that predict something; equal tails share theirs.
  std::vector<std::int64_t> read;
  for (const auto& path : fed.rows) read.push_back(path.back());
  std::sort(read.begin(), read.end());
  read.erase(std::unique(read.begin(), read.end()), read.end());
  const at::Tensor logits_SV =
      model.Logits(model.Hidden(model.Embed(token), position, attention, RowNumbers(read, model.Device())));
  std::vector<std::int64_t> place;  // of each tail's last row among those
  for (const auto& path : fed.rows) {
    place.push_back(std::lower_bound(read.begin(), read.end(), path.back()) - read.begin());
  }
  prefill.logits_LV = logits_SV.index_select(0, Indices(place, model.Device()));
  prefill.path = std::move(fed.rows);
  return prefill;
}

KeyValueCache::KeyValueCache(const Decoder& model, std::int64_t responses, std::int64_t tokens,
                             const CudaKernels* kernels)
    : path_(static_cast<std::size_t>(responses)), config_(model.Config()), kernels_(kernels) {
  const auto options = at::TensorOptions().dtype(model.DType()).device(model.Device());
  const std::int64_t slots = tokens + responses * kSlotsPerResponse;
  for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    // Zeros, not garbage: masked keys are multiplied by 0, and 0 * NaN is NaN.
    pool_.k_SGD.push_back(at::zeros({slots, config_.num_key_value_heads, config_.head_dim}, options));
    pool_.v_SGD.push_back(at::zeros_like(pool_.k_SGD.back()));
  }
  users_S_.assign(static_cast<std::size_t>(slots), 0);
  for (std::int64_t slot = slots; slot-- > 0;) free_.push_back(static_cast<Slot>(slot));
}

void KeyValueCache::Grow() {
  const auto slots = static_cast<std::int64_t>(users_S_.size());
  for (std::size_t layer = 0; layer < pool_.k_SGD.size(); ++layer) {
    pool_.k_SGD[layer] = at::cat({pool_.k_SGD[layer], at::zeros_like(pool_.k_SGD[layer])}, 0);
    pool_.v_SGD[layer] = at::cat({pool_.v_SGD[layer], at::zeros_like(pool_.v_SGD[layer])}, 0);
  }
  users_S_.resize(static_cast<std::size_t>(2 * slots), 0);
  for (std::int64_t slot = 2 * slots; slot-- > slots;) free_.push_back(static_cast<Slot>(slot));
}

KeyValueCache::Slot KeyValueCache::Take() {
  if (free_.empty()) Grow();
  const Slot slot = free_.back();
  free_.pop_back();
  users_S_[static_cast<std::size_t>(slot)] = 1;
  return slot;
}

void KeyValueCache::Use(const Path& path, std::int32_t change) {
  for (const Slot slot : path) {
    if (slot < 0) continue;
    std::int32_t& users = users_S_[static_cast<std::size_t>(slot)];
    users += change;
    if (users == 0) free_.push_back(slot);
  }
}

void KeyValueCache::Start(std::int64_t row, const Prefill& prefill, std::size_t tail) {
  const at::Tensor& keys = prefill.k_NGD.front();
  if (!import_.keys.is_same(keys)) {
    Use(import_.slot_of_row, -1);
    import_ = {keys, Path(static_cast<std::size_t>(keys.size(0)), -1)};
  }
  const auto r = static_cast<std::size_t>(row);
  if (r >= path_.size()) path_.resize(r + 1);
  Use(path_[r], -1);
  path_[r].clear();
  std::vector<std::int64_t> from, to;
  for (const std::int32_t tree_row : prefill.path.at(tail)) {
    Slot& slot = import_.slot_of_row[static_cast<std::size_t>(tree_row)];
    if (slot < 0) {
      slot = Take();
      from.push_back(tree_row);
      to.push_back(slot);
    }
    path_[r].push_back(slot);
  }
  Use(path_[r], 1);
  if (from.empty()) return;
  const at::Tensor from_rows = Indices(from, keys.device()), to_slots = Indices(to, keys.device());
  for (std::size_t layer = 0; layer < pool_.k_SGD.size(); ++layer) {
    pool_.k_SGD[layer].index_copy_(0, to_slots, prefill.k_NGD[layer].index_select(0, from_rows));
    pool_.v_SGD[layer].index_copy_(0, to_slots, prefill.v_NGD[layer].index_select(0, from_rows));
  }
}

at::Tensor KeyValueCache::Step(const Decoder& model, const std::vector<std::int64_t>& tokens) {
  const c10::NoGradGuard no_grad;
  PackedUpload upload;
  const PackedUpload::Place token = upload.Add(tokens);
  const auto attention = MakeRoom(static_cast<std::int64_t>(tokens.size()), upload);
  upload.Send(model.Device());
  return StepEmbeddings(model, model.Embed(upload.Longs(token)), *attention);
}

std::unique_ptr<PoolAttention> KeyValueCache::MakeRoom(std::int64_t rows, PackedUpload& upload) {
  const auto count = static_cast<std::size_t>(rows);
  for (std::size_t r = 0; r < count; ++r) path_[r].push_back(Take());
  return std::make_unique<PoolAttention>(config_, pool_, std::span(path_).first(count), kernels_, upload);
}

at::Tensor KeyValueCache::StepEmbeddings(const Decoder& model, const at::Tensor& embedding_RE,
                                         PoolAttention& attention) {
  const c10::NoGradGuard no_grad;
  return model.Logits(model.Hidden(embedding_RE, attention.Position(), attention));
}

void KeyValueCache::Keep(const std::vector<std::int64_t>& rows) {
  std::vector<Path> kept;
  std::vector<std::size_t> moved_to(path_.size(), rows.size());  // where a row's own path went
  for (const std::int64_t row : rows) {
    const auto r = static_cast<std::size_t>(row);
    if (moved_to[r] == rows.size()) {
      moved_to[r] = kept.size();
      kept.push_back(std::move(path_[r]));
    } else {
      kept.push_back(kept[moved_to[r]]);
      Use(kept.back(), 1);
    }
  }
  for (std::size_t r = 0; r < path_.size(); ++r) {
    if (moved_to[r] == rows.size()) Use(path_[r], -1);
  }
  path_ = std::move(kept);
}

}  // namespace plural::trainer
