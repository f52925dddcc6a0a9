#include "trainer/files/adapter_files.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>

#include <string_view>
#include <utility>

#include "trainer/base/error.h"

namespace plural::trainer {
namespace {

// Equal in the narrower of the two dtypes: the adapter may have been made on a rounded copy of the base.
bool SameWeights(const at::Tensor& stored, const at::Tensor& base) {
  if (stored.sizes() != base.sizes()) return false;
  const at::Tensor host = base.detach().to(at::kCPU);
  const at::ScalarType narrower =
      stored.element_size() < host.element_size() ? stored.scalar_type() : host.scalar_type();
  return at::equal(stored.to(narrower), host.to(narrower));
}

std::vector<WeightFiles::Wanted> InFiles(std::vector<WeightFiles::Wanted> wanted) {
  for (WeightFiles::Wanted& item : wanted) item.name.insert(0, kAdapterPrefix);
  return wanted;
}

}  // namespace

AdapterFiles::AdapterFiles(const std::filesystem::path& folder, const std::set<std::string>& parameters,
                           const std::set<std::string>& replaced)
    : files_(folder, kAdapterStem) {
  constexpr std::string_view kWrapped = ".base_layer.";
  for (const auto& [file_name, reader] : files_.Tensors()) {
    if (!file_name.starts_with(kAdapterPrefix)) continue;
    std::string name = file_name.substr(std::string_view(kAdapterPrefix).size());
    if (replaced.contains(name)) continue;
    if (const std::size_t at = name.find(kWrapped); at != std::string::npos) {
      name.replace(at, kWrapped.size(), ".");
    }
    if (!parameters.contains(name)) continue;
    stored_[name] = file_name;
    others_.push_back(file_name);
  }
}

void AdapterFiles::Check(std::vector<WeightFiles::Wanted> wanted) const {
  files_.Check(InFiles(std::move(wanted)), others_);
}

void AdapterFiles::Fill(std::vector<WeightFiles::Wanted> wanted) const {
  files_.Fill(InFiles(std::move(wanted)), others_);
}

void AdapterFiles::RequireSameBase(const std::string& parameter, const at::Tensor& base) const {
  const auto found = stored_.find(parameter);
  if (found == stored_.end() || SameWeights(files_.Read(found->second), base)) return;
  throw ExitError(ExitCode::kBadData, "'" + files_.Tensors().at(found->second)->Path().string() +
                                          "': tensor '" + found->second +
                                          "' differs from the base model's; give the base model that the "
                                          "adapter was made for");
}

std::vector<std::string> AdapterFiles::StoredBase() const {
  std::vector<std::string> parameters;
  for (const auto& [parameter, file_name] : stored_) parameters.push_back(parameter);
  return parameters;
}

}  // namespace plural::trainer
