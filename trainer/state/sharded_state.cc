#include "trainer/state/sharded_state.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "data/sha256.h"
#include "trainer/state/checkpoint_tensors.h"

namespace plural::trainer {
namespace {

// Elements that are hashed together.
constexpr std::int64_t kHashedTogether = std::int64_t{1} << 22;

at::Tensor HostBuffer(const TrainState& state, std::int64_t size) {
  return at::empty({size}, state.parameters.Values().options().device(at::kCPU));
}

// Elements [offset, offset + size) of a moment, on rank 0; undefined elsewhere. A broadcast where one
// receiver would do: the others' share of the network is idle then.
at::Tensor OnRankZero(const TrainState& state, const at::Tensor& kept, std::int64_t offset, std::int64_t size,
                      dist::Collectives& collectives) {
  const int rank = state.shards->Rank();
  at::Tensor whole;
  if (rank == 0) whole = HostBuffer(state, size);
  for (const auto& piece : state.shards->Within(offset, size)) {
    if (rank != 0 && piece.rank == 0) continue;
    const at::Tensor part =
        rank == 0 ? whole.narrow(0, piece.offset - offset, piece.size) : HostBuffer(state, piece.size);
    if (piece.rank == rank) part.copy_(kept.narrow(0, piece.kept, piece.size));
    if (piece.rank != 0) collectives.Broadcast(part, piece.rank);
  }
  return whole;
}

void AddTo(data::Sha256& hash, const at::Tensor& tensor) {
  const at::Tensor bytes = tensor.cpu().contiguous();
  hash.Update(bytes.const_data_ptr(), bytes.nbytes());
}

}  // namespace

std::string HashOverRanks(const TrainState& state, dist::Collectives& collectives) {
  const bool lead = state.shards->Rank() == 0;
  const std::int64_t all = state.parameters.Values().numel();
  data::Sha256 hash;
  if (lead) AddTo(hash, state.parameters.Values());
  for (const at::Tensor& kept : {state.optimizer.FirstMoment(), state.optimizer.SecondMoment()}) {
    for (std::int64_t begin = 0; begin < all; begin += kHashedTogether) {
      const at::Tensor window =
          OnRankZero(state, kept, begin, std::min(kHashedTogether, all - begin), collectives);
      if (lead) AddTo(hash, window);
    }
  }
  return lead ? hash.Hex() : "";
}

std::string HashWithMomentsOf(const std::filesystem::path& file, const TrainState& state) {
  const auto& spans = state.parameters.Spans();
  const at::Tensor values = state.parameters.Values();
  const SafetensorsReader reader(file);
  RequireTensors(reader, 2 * spans.size());
  data::Sha256 hash;
  AddTo(hash, values);
  for (const char* suffix : {kFirstMoment, kSecondMoment}) {
    for (std::size_t i = 0; i < spans.size(); ++i) {
      AddTo(hash, ReadTensor(reader, spans[i].name + suffix, spans[i].shape, values.scalar_type()));
      const std::int64_t next = i + 1 < spans.size() ? spans[i + 1].offset : values.numel();
      AddTo(hash, HostBuffer(state, next - spans[i].offset - spans[i].size).zero_());
    }
  }
  return hash.Hex();
}

MomentsInTurn::MomentsInTurn(const TrainState& state, dist::Collectives& collectives)
    : state_(state), collectives_(collectives) {
  const auto& spans = state.parameters.Spans();
  const auto name = [&](const Place& place) {
    return spans[place.span].name + (place.second ? kSecondMoment : kFirstMoment);
  };
  for (std::size_t i = 0; i < spans.size(); ++i) {
    places_.push_back({i, false});
    places_.push_back({i, true});
  }
  std::sort(places_.begin(), places_.end(),
            [&](const Place& left, const Place& right) { return name(left) < name(right); });
  for (const Place& place : places_) {
    items_.push_back({name(place), state.parameters.Values().scalar_type(), spans[place.span].shape});
  }
}

at::Tensor MomentsInTurn::Next() {
  const Place& place = places_.at(taken_++);
  const auto& span = state_.parameters.Spans()[place.span];
  const at::Tensor kept = place.second ? state_.optimizer.SecondMoment() : state_.optimizer.FirstMoment();
  const at::Tensor whole = OnRankZero(state_, kept, span.offset, span.size, collectives_);
  return whole.defined() ? whole.view(span.shape) : whole;
}

WrittenFile WriteMoments(const std::filesystem::path& file, MomentsInTurn& moments) {
  SafetensorsWriter writer(file, moments.Items());
  for (std::size_t i = 0; i < moments.Items().size(); ++i) {
    if (writer.Items()[i].name != moments.Items()[i].name) {
      throw std::logic_error("MomentsInTurn has another order than the file: " + moments.Items()[i].name);
    }
    writer.Write(moments.Next());
  }
  return writer.Close();
}

void PassOn(MomentsInTurn& moments) {
  for (std::size_t i = 0; i < moments.Items().size(); ++i) moments.Next();
}

std::vector<dist::NamedTensor> CopyOfMoments(MomentsInTurn& moments) {
  std::vector<dist::NamedTensor> copies;
  for (const SafetensorsWriter::Item& item : moments.Items()) {
    if (const at::Tensor moment = moments.Next(); moment.defined()) copies.push_back({item.name, moment});
  }
  return copies;
}

void ReadMoments(const std::filesystem::path& file, TrainState& state, dist::Collectives& collectives) {
  const c10::NoGradGuard no_gradient;
  const at::ScalarType dtype = state.parameters.Values().scalar_type();
  std::optional<SafetensorsReader> reader;
  if (state.shards->Rank() == 0) reader.emplace(file);
  for (const auto& span : state.parameters.Spans()) {
    for (const bool second : {false, true}) {
      const at::Tensor whole =
          reader ? ReadTensor(*reader, span.name + (second ? kSecondMoment : kFirstMoment), span.shape, dtype)
                       .flatten()
                 : HostBuffer(state, span.size);
      collectives.Broadcast(whole, 0);
      const at::Tensor kept = second ? state.optimizer.SecondMoment() : state.optimizer.FirstMoment();
      for (const auto& piece : state.shards->Within(span.offset, span.size)) {
        if (piece.rank != state.shards->Rank()) continue;
        kept.narrow(0, piece.kept, piece.size).copy_(whole.narrow(0, piece.offset - span.offset, piece.size));
      }
    }
  }
}

std::uint64_t SumOfWords(const at::Tensor& flat) {
  if (!flat.is_cpu()) return static_cast<std::uint64_t>(flat.view(at::kLong).sum().item<std::int64_t>());
  const auto* words = static_cast<const std::uint64_t*>(flat.const_data_ptr());
  return std::accumulate(words, words + flat.nbytes() / sizeof(std::uint64_t), std::uint64_t{0});
}

}  // namespace plural::trainer
