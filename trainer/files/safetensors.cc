#include "trainer/files/safetensors.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/printable.h"
#include "trainer/files/safetensors_header.h"

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored little-endian");

constexpr std::int64_t kMaxHeaderBytes = std::int64_t{16} << 20;

std::int64_t ModifiedNs(const struct stat& status) {
  return static_cast<std::int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
}

std::string Quoted(const fs::path& path) { return "'" + path.string() + "'"; }

}  // namespace

SafetensorsReader::SafetensorsReader(const fs::path& path) : path_(path) {
  // O_NONBLOCK: a pipe in place of the file must not block the open.
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) {
    throw ExitError(ExitCode::kMissingInput, "cannot read " + Quoted(path) + ": " + std::strerror(errno));
  }
  try {
    struct stat status {};
    if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) Fail("not a regular file");
    file_size_ = status.st_size;
    modified_ns_ = ModifiedNs(status);
    if (file_size_ < 10) Fail(std::to_string(file_size_) + " bytes are too few for a safetensors file");
    std::string first(static_cast<std::size_t>(std::min<std::int64_t>(file_size_, 64)), '\0');
    ReadBytes(first.data(), static_cast<std::int64_t>(first.size()), 0);
    if (IsGitLfsPointer(first)) Fail(kGitLfsAdvice);
    std::uint64_t header_size = 0;
    ReadBytes(&header_size, sizeof header_size, 0);
    const auto room = static_cast<std::uint64_t>(std::min(kMaxHeaderBytes, file_size_ - 8));
    if (header_size < 2 || header_size > room) {
      Fail("header of " + std::to_string(header_size) + " bytes; 2 to " + std::to_string(room) +
           " are possible here: not a safetensors file, or truncated (pickle formats are not accepted)");
    }
    std::string header(header_size, '\0');
    ReadBytes(header.data(), static_cast<std::int64_t>(header_size), 8);
    data_start_ = 8 + static_cast<std::int64_t>(header_size);
    std::string error;
    if (!ParseSafetensorsHeader(header, entries_, metadata_, error)) Fail(error);
    CheckLayout(file_size_ - data_start_);
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

SafetensorsReader::~SafetensorsReader() { close(descriptor_); }

void SafetensorsReader::Fail(const std::string& what) const {
  throw ExitError(ExitCode::kBadData, Printable(Quoted(path_) + ": " + what));
}

void SafetensorsReader::CheckLayout(std::int64_t data_size) const {
  std::vector<std::pair<const std::string*, const Entry*>> order;
  for (const auto& [name, entry] : entries_) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](const auto& x, const auto& y) {
    return std::pair(x.second->begin, x.second->end) < std::pair(y.second->begin, y.second->end);
  });
  std::int64_t expected = 0;
  for (const auto& [name, entry] : order) {
    if (entry->begin != expected) {
      Fail("tensor '" + *name + "' begins at byte " + std::to_string(entry->begin) + ", " +
           std::to_string(expected) + " is expected: the tensors leave a hole or overlap");
    }
    if (entry->end > data_size) {
      Fail("tensor '" + *name + "' ends at byte " + std::to_string(entry->end) +
           " of the data, the file holds " + std::to_string(data_size) +
           ": truncated or damaged; fetch or write it again");
    }
    expected = entry->end;
  }
  if (expected != data_size) {
    Fail("the header describes " + std::to_string(expected) + " bytes of data, the file holds " +
         std::to_string(data_size) + ": damaged, or something was appended; fetch or write it again");
  }
}

void SafetensorsReader::ReadBytes(void* to, std::int64_t size, std::int64_t offset) const {
  auto* out = static_cast<char*>(to);
  while (size > 0) {
    const auto piece = static_cast<std::size_t>(std::min(size, std::int64_t{1} << 28));
    const ssize_t got = pread(descriptor_, out, piece, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) Fail(std::string("cannot read: ") + std::strerror(errno));
    if (got == 0) Fail("the file ended while it was read: it was changed meanwhile");
    out += got;
    size -= got;
    offset += got;
  }
}

at::Tensor SafetensorsReader::Read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) Fail("tensor '" + name + "' is missing");
  const Entry& entry = found->second;
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(entry.dtype));
  ReadBytes(tensor.data_ptr(), entry.end - entry.begin, data_start_ + entry.begin);
  struct stat status {};
  if (fstat(descriptor_, &status) != 0 || status.st_size != file_size_ ||
      ModifiedNs(status) != modified_ns_) {
    Fail("the file was changed while it was read");
  }
  return tensor;
}

std::int64_t SafetensorsWriter::Item::Bytes() const {
  std::int64_t bytes = static_cast<std::int64_t>(at::elementSize(dtype));
  for (const std::int64_t size : shape) bytes *= size;
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<Item> items,
                                     const std::map<std::string, std::string>& metadata)
    : items_(std::move(items)), file_(path) {
  const auto key = [](const Item& item) {
    return std::pair(-static_cast<std::int64_t>(at::elementSize(item.dtype)), std::string_view(item.name));
  };
  std::sort(items_.begin(), items_.end(), [&](const Item& x, const Item& y) { return key(x) < key(y); });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t offset = 0;
  for (const Item& item : items_) {
    if (header.contains(item.name)) throw std::logic_error("tensor '" + item.name + "' is given twice");
    const std::int64_t end = offset + item.Bytes();
    header[item.name] = {
        {"dtype", SafetensorsDType(item.dtype)}, {"shape", item.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t header_size = text.size();
  WriteBytes({reinterpret_cast<const char*>(&header_size), sizeof header_size});
  WriteBytes(text);
}

void SafetensorsWriter::WriteBytes(std::string_view bytes) {
  hash_.Update(bytes.data(), bytes.size());
  file_.Write(bytes);
}

void SafetensorsWriter::Write(const at::Tensor& tensor) {
  if (written_ == items_.size()) throw std::logic_error("more tensors than were announced");
  const Item& item = items_[written_++];
  if (tensor.scalar_type() != item.dtype || tensor.sizes() != at::IntArrayRef(item.shape)) {
    throw std::logic_error("tensor '" + item.name + "' is not the one announced");
  }
  const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
  WriteBytes({static_cast<const char*>(host.data_ptr()), host.nbytes()});
}

WrittenFile SafetensorsWriter::Close() {
  if (written_ != items_.size()) throw std::logic_error("fewer tensors than were announced");
  file_.Close();
  return {file_.Size(), hash_.Hex()};
}

WrittenFile WriteSafetensors(const fs::path& path, std::vector<dist::NamedTensor> tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::map<std::string_view, const at::Tensor*> by_name;
  std::vector<SafetensorsWriter::Item> items;
  for (const dist::NamedTensor& item : tensors) {
    by_name[item.name] = &item.tensor;
    items.push_back({item.name, item.tensor.scalar_type(), item.tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, std::move(items), metadata);
  for (const SafetensorsWriter::Item& item : writer.Items()) writer.Write(*by_name.at(item.name));
  return writer.Close();
}

}  // namespace plural::trainer
