// Collectives that hand every call on to MPI: what a test derives its own from.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "tests/mpi/mpi_world.h"

namespace plural::testing {

class Forwarding : public dist::Collectives {
 public:
  std::unique_ptr<dist::Pending> AllReduceSum(const at::Tensor& tensor) override {
    return inner_->AllReduceSum(tensor);
  }
  std::unique_ptr<dist::Pending> ReduceScatterSum(const at::Tensor& tensor) override {
    return inner_->ReduceScatterSum(tensor);
  }
  bool ScattersSums() const override { return inner_->ScattersSums(); }
  std::unique_ptr<dist::Pending> AllGatherSlices(const at::Tensor& tensor) override {
    return inner_->AllGatherSlices(tensor);
  }
  void AllReduceSum(std::span<double> values) override { inner_->AllReduceSum(values); }
  void AllReduceMax(std::span<double> values) override { inner_->AllReduceMax(values); }
  void Broadcast(std::string& bytes, int root) override { inner_->Broadcast(bytes, root); }
  std::vector<std::string> AllGather(const std::string& bytes) override { return inner_->AllGather(bytes); }
  void Broadcast(const at::Tensor& tensor, int root) override { inner_->Broadcast(tensor, root); }
  void Scatter(const at::Tensor& whole, const at::Tensor& slice, int root) override {
    inner_->Scatter(whole, slice, root);
  }
  void AllGather(const at::Tensor& slice, const at::Tensor& whole) override {
    inner_->AllGather(slice, whole);
  }
  void BroadcastOnMachine(const at::Tensor& tensor) override { inner_->BroadcastOnMachine(tensor); }
  void Barrier() override { inner_->Barrier(); }

 private:
  const std::unique_ptr<dist::Collectives> inner_ = dist::MakeMpiCollectives(World());
};

}  // namespace plural::testing
