// Optimizer states whose moments lie on all ranks, against one that is whole on each.
#include "dist/shards.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "data/random.h"
#include "dist/gradient_sync.h"
#include "dist/slices.h"
#include "tests/mpi/forwarding.h"
#include "tests/mpi/mpi_world.h"
#include "trainer/base/file_io.h"
#include "trainer/state/checkpoint.h"
#include "trainer/state/replicas.h"
#include "trainer/state/sharded_state.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

using dist::Shards;
using testing::World;

// Spans with and without padding, smaller and larger than a slice; norms, which do not decay, among them.
const std::vector<std::vector<std::int64_t>> kShardShapes = {{7, 91}, {13}, {40, 33}, {1, 1}, {16}, {5, 200}};
constexpr std::int64_t kBucketBytes[] = {1, 3000, 25 << 20};
const AdamW::Settings kSettings{.weight_decay = 0.1};
const std::vector<double> kScales = {1.0, 2.0, 1.0, 0.5, 1.0, 1.0};

// Numbers that need all their digits; the same on all ranks.
at::Tensor Drawn(at::IntArrayRef shape, std::uint64_t seed) {
  data::CounterRandom random{seed};
  at::Tensor tensor = at::empty(shape);
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.data_ptr<float>()[i] = static_cast<float>(2.0 * random.Uniform() - 1.0);
  }
  return tensor;
}

std::vector<dist::NamedTensor> Trainable() {
  std::vector<dist::NamedTensor> tensors;
  for (std::size_t i = 0; i < kShardShapes.size(); ++i) {
    // Not in the order of their names, in which files have them.
    tensors.push_back({"t" + std::to_string(9 - i), Drawn(kShardShapes[i], i).set_requires_grad(true)});
  }
  return tensors;
}

TrainState StateOf(std::optional<std::int64_t> bucket_bytes) {
  std::optional<Shards::Settings> sharding;
  if (bucket_bytes) sharding = {World().Rank(), World().Size(), *bucket_bytes};
  TrainState state(Trainable(), kSettings, kScales, sharding);
  state.position.epoch_sums = Sums({"groups", "unpenalised_groups", "loss", "kl_nats"});
  return state;
}

// Steps with gradients that do not depend on the rank.
void TakeSteps(TrainState& state, std::int64_t to, dist::Collectives& collectives) {
  for (; state.position.step < to; ++state.position.step) {
    for (std::size_t i = 0; i < kShardShapes.size(); ++i) {
      const auto seed = 100 * static_cast<std::uint64_t>(state.position.step + 1) + i;
      state.parameters.Tensors()[i].tensor.mutable_grad().copy_(Drawn(kShardShapes[i], seed));
    }
    state.optimizer.Step(state.parameters, 0.01, 0.7);
    if (state.shards) state.shards->AllGather(state.parameters.Values(), collectives);
  }
}

// The whole state's elements that this rank keeps.
at::Tensor Kept(const at::Tensor& flat, const Shards& shards) {
  std::vector<at::Tensor> parts = {at::empty({0})};
  for (const auto& piece : shards.Own()) parts.push_back(flat.narrow(0, piece.offset, piece.size));
  return at::cat(parts);
}

TEST(Shards, EveryElementIsKeptOnce) {
  const dist::FlatParameters parameters(Trainable());
  const std::int64_t all = parameters.Values().numel();
  for (const std::int64_t bucket_bytes : kBucketBytes) {
    for (const int ranks : {1, 2, 3, 7}) {
      SCOPED_TRACE(std::to_string(bucket_bytes) + " bytes, " + std::to_string(ranks) + " ranks");
      std::int64_t kept = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Shards shards(parameters, {rank, ranks, bucket_bytes});
        kept += shards.OwnElements();
        std::int64_t end = 0, own = 0;
        for (const auto& piece : shards.Within(0, all)) {
          EXPECT_EQ(piece.offset, end);
          end += piece.size;
          if (piece.rank != rank) continue;
          EXPECT_EQ(piece.kept, own);
          own += piece.size;
        }
        EXPECT_EQ(end, all);
        EXPECT_EQ(own, shards.OwnElements());
        // A part that begins and ends inside of pieces.
        end = 100;
        for (const auto& piece : shards.Within(100, 1200)) {
          EXPECT_EQ(piece.offset, end);
          end += piece.size;
        }
        EXPECT_EQ(end, 1300);
      }
      EXPECT_EQ(kept, all);
      if (bucket_bytes == kBucketBytes[2]) {  // one bucket: as even as its slices
        EXPECT_LE(Shards(parameters, {ranks - 1, ranks, bucket_bytes}).OwnElements(),
                  all / ranks + ranks * dist::kSliceUnit);
      }
    }
  }
}

TEST(Shards, SlicesOfSumsAndOfAll) {
  const auto collectives = dist::MakeMpiCollectives(World());
  const int ranks = World().Size();
  for (const std::int64_t size : {16, 48, 16 * 1001}) {
    const dist::Slice own = dist::SliceOf(size, ranks, World().Rank());
    const auto of_rank = [&](int rank) {
      return Drawn({size}, static_cast<std::uint64_t>(rank)).mul_(std::exp2(3.0 * rank));
    };
    const at::Tensor sum = of_rank(World().Rank()), scattered = sum.clone();
    collectives->AllReduceSum(sum)->Wait();
    collectives->ReduceScatterSum(scattered)->Wait();
    EXPECT_TRUE(at::equal(scattered.narrow(0, own.offset, own.size), sum.narrow(0, own.offset, own.size)));

    const at::Tensor gathered = at::zeros({size});
    gathered.narrow(0, own.offset, own.size).copy_(sum.narrow(0, own.offset, own.size));
    collectives->AllGatherSlices(gathered)->Wait();
    EXPECT_TRUE(at::equal(gathered, sum)) << size;
  }
  EXPECT_THROW(collectives->AllGatherSlices(at::zeros({17})), std::invalid_argument);
  EXPECT_THROW(collectives->ReduceScatterSum(at::zeros({17})), std::invalid_argument);
}

TEST(Shards, UpdatesHaveTheBitsOfAWholeOptimizer) {
  const auto collectives = dist::MakeMpiCollectives(World());
  TrainState whole = StateOf({});
  TakeSteps(whole, 3, *collectives);
  for (const std::int64_t bucket_bytes : kBucketBytes) {
    SCOPED_TRACE(bucket_bytes);
    TrainState sharded = StateOf(bucket_bytes);
    TakeSteps(sharded, 3, *collectives);
    EXPECT_TRUE(at::equal(sharded.parameters.Values(), whole.parameters.Values()));
    EXPECT_TRUE(
        at::equal(sharded.optimizer.FirstMoment(), Kept(whole.optimizer.FirstMoment(), *sharded.shards)));
    EXPECT_TRUE(
        at::equal(sharded.optimizer.SecondMoment(), Kept(whole.optimizer.SecondMoment(), *sharded.shards)));
  }
}

// What NCCL does: of a sum a rank gets its slice, and must not look at the rest.
class Scattering : public testing::Forwarding {
 public:
  std::unique_ptr<dist::Pending> ReduceScatterSum(const at::Tensor& tensor) override {
    class Poisoned : public dist::Pending {
     public:
      Poisoned(std::unique_ptr<dist::Pending> inner, at::Tensor tensor)
          : inner_(std::move(inner)), tensor_(std::move(tensor)) {}
      void Wait() override {
        inner_->Wait();
        const dist::Slice own = dist::SliceOf(tensor_.numel(), World().Size(), World().Rank());
        const at::Tensor kept = tensor_.narrow(0, own.offset, own.size).clone();
        tensor_.fill_(std::numeric_limits<double>::quiet_NaN());
        tensor_.narrow(0, own.offset, own.size).copy_(kept);
      }

     private:
      std::unique_ptr<dist::Pending> inner_;
      at::Tensor tensor_;
    };
    return std::make_unique<Poisoned>(Forwarding::ReduceScatterSum(tensor), tensor);
  }
  bool ScattersSums() const override { return true; }
};

// Gradients are integers, whose sums and sums of squares are exact in any order.
TEST(Shards, ASliceOfTheSumIsAllThatAStepNeeds) {
  Scattering collectives;
  for (const std::int64_t bucket_bytes : kBucketBytes) {
    SCOPED_TRACE(bucket_bytes);
    TrainState whole = StateOf({}), sharded = StateOf(bucket_bytes);
    const auto gradients = [](const TrainState& state, int factor) {
      for (const auto& span : state.parameters.Spans()) {
        state.parameters.Gradients()
            .narrow(0, span.offset, span.size)
            .copy_(at::arange(span.size, at::kFloat).remainder(17).sub_(8).mul_(factor));
      }
    };
    gradients(sharded, World().Rank() + 1);
    dist::GradientSync sync(sharded.parameters, collectives, *sharded.shards);
    sync.Finish();
    gradients(whole, World().Size() * (World().Size() + 1) / 2);
    const double norm = GradientNorm(sharded.parameters, *sharded.shards, collectives);
    EXPECT_EQ(norm, GradientNorm(whole.parameters));
    for (TrainState* state : {&whole, &sharded})
      state->optimizer.Step(state->parameters, 0.01, ClipScale(norm, 1.0));
    sharded.shards->AllGather(sharded.parameters.Values(), collectives);
    EXPECT_TRUE(at::equal(sharded.parameters.Values(), whole.parameters.Values()));
  }
}

TEST(Shards, ACheckpointHasTheBytesOfAWholeStateAndServesBoth) {
  const auto collectives = dist::MakeMpiCollectives(World());
  const bool lead = World().Rank() == 0;
  const fs::path folder = fs::temp_directory_path() / ("shards_test-" + std::to_string(World().Size()));
  if (lead) fs::remove_all(folder);
  TrainState whole = StateOf({});
  TakeSteps(whole, 3, *collectives);
  const std::string hash = ReplicaHash(whole);
  if (lead) Checkpoints(folder / "whole", 1).Save(SnapshotOf(whole, hash, false));
  for (const std::int64_t bucket_bytes : kBucketBytes) {
    SCOPED_TRACE(bucket_bytes);
    TrainState sharded = StateOf(bucket_bytes);
    TakeSteps(sharded, 3, *collectives);
    const std::string found = HashOverRanks(sharded, *collectives);
    EXPECT_EQ(found, lead ? hash : "");
    const fs::path of_shards = folder / std::to_string(bucket_bytes);
    for (const bool copies : {false, true}) {
      MomentsInTurn moments(sharded, *collectives);
      std::vector<dist::NamedTensor> copied;
      if (copies) copied = CopyOfMoments(moments);
      if (lead) {
        Snapshot snapshot = SnapshotOf(sharded, found, copies);
        snapshot.moments = copied;
        if (!copies) snapshot.sharded_moments = &moments;
        Checkpoints(of_shards, 1).Save(snapshot);
        for (const char* name : {"optimizer.safetensors", "trainable.safetensors", "state.json"}) {
          EXPECT_TRUE(ReadFile(of_shards / "step-00000003" / name) ==
                      ReadFile(folder / "whole/step-00000003" / name))
              << name;
        }
      } else if (!copies) {
        PassOn(moments);
      }
    }
    // A state that has gone elsewhere meanwhile comes back, and goes on as the whole one does.
    TakeSteps(sharded, 5, *collectives);
    std::string from;
    if (lead) from = Checkpoints(folder / "whole", 1).LoadNewest(sharded).folder.string();
    BroadcastState(sharded, *collectives);
    collectives->Broadcast(from, 0);
    ReadMoments(MomentsFile(from), sharded, *collectives);
    EXPECT_EQ(sharded.optimizer.Updates(), 3);
    EXPECT_EQ(HashOverRanks(sharded, *collectives), lead ? hash : "");
    TakeSteps(sharded, 4, *collectives);
    TrainState on = StateOf({});
    TakeSteps(on, 4, *collectives);
    EXPECT_TRUE(at::equal(sharded.parameters.Values(), on.parameters.Values()));
  }
  collectives->Barrier();
  if (lead) fs::remove_all(folder);
}

TEST(Shards, WhatIsNotFiniteIsFoundWhereItIsKept) {
  const auto collectives = dist::MakeMpiCollectives(World());
  for (const std::int64_t bucket_bytes : kBucketBytes) {
    TrainState sharded = StateOf(bucket_bytes);
    EXPECT_EQ(NotFinite(sharded), "");
    RequireFinite(sharded, World(), *collectives);
    const auto& span = sharded.parameters.Spans()[2];
    const auto pieces = sharded.shards->Within(span.offset, span.size);
    const auto& last = pieces.back();
    if (last.rank == World().Rank())
      sharded.optimizer.SecondMoment()[last.kept + last.size - 1].fill_(INFINITY);
    EXPECT_EQ(NotFinite(sharded), last.rank == World().Rank() ? span.name : "");
  }
}

TEST(Shards, OneBitChangesTheSumOfWords) {
  const at::Tensor flat = Drawn({64}, 5);
  const std::uint64_t sum = SumOfWords(flat);
  for (const int byte : {0, 3, 4, 255}) {
    static_cast<unsigned char*>(flat.data_ptr())[byte] ^= 1;
    EXPECT_NE(SumOfWords(flat), sum) << byte;
    static_cast<unsigned char*>(flat.data_ptr())[byte] ^= 1;
  }
  EXPECT_EQ(SumOfWords(flat), sum);
}

}  // namespace
}  // namespace plural::trainer
