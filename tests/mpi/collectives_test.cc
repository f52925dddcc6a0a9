// MPI collectives against exact oracles. Values are integers below 2^24, whose sums are exact in fp32
// and independent of order, so every comparison is on equal bits.
#include "dist/collectives.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "dist/error.h"
#include "tests/mpi/mpi_world.h"

namespace plural {
namespace {

using dist::Collectives;
using dist::MakeMpiCollectives;
using testing::World;

// Element i of rank r: ((7 i + 13 r) mod 1001) - 500.
at::Tensor Values(std::int64_t size, int rank, at::ScalarType type) {
  return ((at::arange(size, at::kLong) * 7 + 13 * rank).remainder(1001) - 500).to(type);
}

at::Tensor SumOverRanks(std::int64_t size, at::ScalarType type) {
  at::Tensor sum = at::zeros({size}, type);
  for (int rank = 0; rank < World().Size(); ++rank) sum += Values(size, rank, type);
  return sum;
}

std::string Bytes(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.data_ptr()), tensor.nbytes()};
}

void ExpectSameOnAllRanks(Collectives& collectives, const std::string& bytes) {
  for (const std::string& other : collectives.AllGather(bytes)) EXPECT_TRUE(other == bytes);
}

TEST(AllReduceSum, EqualsTheExactSum) {
  const auto collectives = MakeMpiCollectives(World());
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (const std::int64_t size : {0, 1, 2, 3, 16, 1000, 100'003}) {
      at::Tensor tensor = Values(size, World().Rank(), type);
      collectives->AllReduceSum(tensor)->Wait();
      EXPECT_TRUE(at::equal(tensor, SumOverRanks(size, type))) << size;
    }
  }
}

TEST(AllReduceSum, SendsALargeTensorInChunks) {
  for (const std::int64_t chunk : {1, 7, 999, 1000, 1001}) {
    const auto collectives = MakeMpiCollectives(World(), chunk);
    at::Tensor tensor = Values(1000, World().Rank(), at::kDouble);
    collectives->AllReduceSum(tensor)->Wait();
    EXPECT_TRUE(at::equal(tensor, SumOverRanks(1000, at::kDouble))) << chunk;
  }
}

// Random reals: the sum depends on the order, which must be the same for all ranks.
TEST(AllReduceSum, GivesTheSameBitsToAllRanks) {
  const auto collectives = MakeMpiCollectives(World());
  for (const std::int64_t size : {5, 4096, 1'000'003}) {
    std::uint64_t state = 1234567 + static_cast<std::uint64_t>(World().Rank());
    std::vector<float> values(static_cast<std::size_t>(size));
    for (float& value : values) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      value = static_cast<float>(state >> 40) * 0x1p-20f - 8.0f;
    }
    at::Tensor tensor = at::from_blob(values.data(), {size}, at::kFloat);
    collectives->AllReduceSum(tensor)->Wait();
    ExpectSameOnAllRanks(*collectives, Bytes(tensor));
  }
}

TEST(AllReduceSum, KeepsManyUnderWayInOrder) {
  const auto collectives = MakeMpiCollectives(World());
  std::vector<at::Tensor> tensors;
  std::vector<std::unique_ptr<dist::Pending>> pending;
  for (std::int64_t size = 1; size <= 300; ++size) {
    tensors.push_back(Values(size, World().Rank(), at::kFloat));
    pending.push_back(collectives->AllReduceSum(tensors.back()));
  }
  double total = 1.0;
  collectives->AllReduceSum(std::span(&total, 1));  // a control call in between queues behind them
  EXPECT_EQ(total, World().Size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    pending[i]->Wait();
    EXPECT_TRUE(at::equal(tensors[i], SumOverRanks(tensors[i].numel(), at::kFloat))) << i;
  }
}

// Rank 0 starts the sum and only then lets the others start theirs: a blocking call would never return.
TEST(AllReduceSum, ReturnsBeforePeersCome) {
  const auto collectives = MakeMpiCollectives(World());
  std::string path = std::filesystem::temp_directory_path() / ("plural-started-" + std::to_string(getpid()));
  collectives->Broadcast(path, 0);
  at::Tensor tensor = Values(100'000, World().Rank(), at::kFloat);
  while (World().Rank() != 0 && !std::filesystem::exists(path)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const auto pending = collectives->AllReduceSum(tensor);
  if (World().Rank() == 0) std::ofstream(path).put('\n');
  pending->Wait();
  EXPECT_TRUE(at::equal(tensor, SumOverRanks(100'000, at::kFloat)));
  if (World().Rank() == 0) std::filesystem::remove(path);
}

TEST(AllReduceSum, KeepsTheTensorAliveAndRunsWithoutWait) {
  const auto collectives = MakeMpiCollectives(World());
  collectives->AllReduceSum(Values(1 << 16, World().Rank(), at::kFloat));  // nobody keeps either
  collectives->Barrier();
}

TEST(AllReduceSum, RefusesOtherTensors) {
  const auto collectives = MakeMpiCollectives(World());
  EXPECT_THROW(collectives->AllReduceSum(at::zeros({4}, at::kBFloat16)), std::invalid_argument);
  EXPECT_THROW(collectives->AllReduceSum(at::zeros({4, 4}).t().slice(1, 0, 2)), std::invalid_argument);
  EXPECT_THROW(collectives->AllReduceSum(at::Tensor()), std::invalid_argument);
  EXPECT_THROW(MakeMpiCollectives(World(), 0), std::invalid_argument);
  EXPECT_THROW(MakeMpiCollectives(World(), std::int64_t{1} << 31), std::invalid_argument);
}

TEST(Control, ReducesValues) {
  const auto collectives = MakeMpiCollectives(World());
  const double rank = World().Rank(), size = World().Size();
  std::vector<double> values{rank, -rank, 1.0};
  collectives->AllReduceSum(values);
  EXPECT_EQ(values, (std::vector<double>{size * (size - 1) / 2, -size * (size - 1) / 2, size}));
  values = {rank, -rank, 1.0};
  collectives->AllReduceMax(values);
  EXPECT_EQ(values, (std::vector<double>{size - 1, 0.0, 1.0}));
}

TEST(Control, BroadcastsStringsFromEveryRank) {
  const auto collectives = MakeMpiCollectives(World());
  for (int root = 0; root < World().Size(); ++root) {
    for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{70'001}}) {
      std::string text(static_cast<std::size_t>(World().Rank()) * 5, 'x');  // own, of another length
      if (World().Rank() == root) text = std::string(length, static_cast<char>('a' + root));
      collectives->Broadcast(text, root);
      EXPECT_EQ(text, std::string(length, static_cast<char>('a' + root)));
    }
  }
  std::string text;
  EXPECT_THROW(collectives->Broadcast(text, World().Size()), std::invalid_argument);
  EXPECT_THROW(collectives->Broadcast(text, -1), std::invalid_argument);
}

TEST(Control, BroadcastsTensorsOfAnyType) {
  const auto collectives = MakeMpiCollectives(World());
  const int root = World().Size() - 1;
  for (const at::ScalarType type : {at::kBFloat16, at::kLong, at::kDouble, at::kBool}) {
    at::Tensor tensor = Values(1003, World().Rank(), at::kLong).remainder(2).to(type).view({17, 59});
    collectives->Broadcast(tensor, root);
    EXPECT_TRUE(at::equal(tensor, Values(1003, root, at::kLong).remainder(2).to(type).view({17, 59})));
  }
}

// All ranks of these tests are on one machine, whose first is rank 0.
TEST(Control, BroadcastsTensorsOnAMachine) {
  const auto collectives = MakeMpiCollectives(World());
  for (const at::ScalarType type : {at::kBFloat16, at::kByte, at::kFloat}) {
    at::Tensor tensor = Values(70'001, World().Rank(), at::kLong).remainder(2).to(type);
    collectives->BroadcastOnMachine(tensor);
    EXPECT_TRUE(at::equal(tensor, Values(70'001, 0, at::kLong).remainder(2).to(type)));
  }
  EXPECT_THROW(collectives->BroadcastOnMachine(at::zeros({4, 4}).t().slice(1, 0, 2)), std::invalid_argument);
}

TEST(Control, GathersStringsOfDifferentLengths) {
  const auto collectives = MakeMpiCollectives(World());
  // Rank 0 gives nothing, rank r gives 1000 r bytes with zeros among them.
  const auto text = [](int rank) {
    std::string bytes(static_cast<std::size_t>(rank) * 1000, '\0');
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<char>(i * 31 + static_cast<std::size_t>(rank));
    return bytes;
  };
  const std::vector<std::string> all = collectives->AllGather(text(World().Rank()));
  EXPECT_EQ(all.size(), static_cast<std::size_t>(World().Size()));
  for (int rank = 0; rank < World().Size(); ++rank)
    EXPECT_EQ(all[static_cast<std::size_t>(rank)], text(rank));
}

// Asking for a GPU where none is to be seen says so on every rank, and CPU use goes on.
TEST(Nccl, RefusesWithoutGpu) {
  EXPECT_EQ(dist::NcclCompiled(), dist::NcclVersion() != "not compiled");
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  EXPECT_THROW(dist::LocalCudaDevice(World()), dist::ResourceError);
  EXPECT_THROW(dist::MakeNcclCollectives(World(), 0, 60.0), dist::ResourceError);
  const auto collectives = MakeMpiCollectives(World());
  if (World().Size() == 1) {  // of several, one throws and the others wait for the job's end
    EXPECT_THROW(dist::TakeCudaDevice(World(), *collectives), dist::ResourceError);
  }
  at::Tensor tensor = Values(100, World().Rank(), at::kFloat);
  collectives->AllReduceSum(tensor)->Wait();
  EXPECT_TRUE(at::equal(tensor, SumOverRanks(100, at::kFloat)));
}

}  // namespace
}  // namespace plural
