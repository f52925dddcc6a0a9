// Strict reading of HDF5 files: only the subset that a corpus may use is accepted.
//
// Owns: opening, the checks of storage (links, layout, filters, types, sizes), typed reads. Does not own:
// what the datasets mean (corpus.h). Thread rule: one thread at a time for all objects of one file.
//
// Internal to the data library: it keeps hdf5.h out of corpus.h. Every error is a DataError of one line
// that names file and dataset; HDF5's own error stack stays silent. Handles close themselves, in any
// order, on every path.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace plural::data {

// Turns off HDF5's printing of its error stack while in scope. It is a setting of the calling thread.
class QuietHdf5 {
 public:
  QuietHdf5();
  ~QuietHdf5();
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

// An identifier of any HDF5 object; negative = none.
class Hdf5Handle {
 public:
  explicit Hdf5Handle(hid_t id = H5I_INVALID_HID) : id_(id) {}
  ~Hdf5Handle() {
    if (id_ >= 0) H5Idec_ref(id_);
  }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }

  hid_t Id() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }

 private:
  hid_t id_;
};

// A one-dimensional dataset of T: int32_t, int64_t, uint8_t, float or double, little endian on disk.
template <class T>
class Hdf5Dataset {
 public:
  std::int64_t Size() const { return size_; }
  // Elements [begin, end). Errors: DataError when a chunk fails its checksum; nothing is returned then.
  std::vector<T> Read(std::int64_t begin, std::int64_t end) const;
  std::vector<T> ReadAll() const { return Read(0, size_); }
  // The beginning of its error messages: "FILE: dataset 'NAME'".
  const std::string& Where() const { return where_; }

 private:
  friend class Hdf5File;
  Hdf5Handle id_;
  std::int64_t size_ = 0;
  std::string where_;
};

// Returns `path`. Errors: MissingInput when it is absent, unreadable or no regular file.
const std::filesystem::path& RequireReadableFile(const std::filesystem::path& path);

class Hdf5File {
 public:
  // Errors: those of RequireReadableFile; DataError when it is not a whole HDF5 file with
  // checksummed metadata, or is open for writing.
  explicit Hdf5File(const std::filesystem::path& path);

  // Attributes of the root group: scalar, 64-bit little endian; fixed-length strings up to 64 KiB.
  bool HasAttribute(const char* name) const;
  std::int64_t IntegerAttribute(const char* name) const;
  std::string StringAttribute(const char* name) const;
  // A list of at most 4096 integers.
  std::vector<std::int64_t> IntegersAttribute(const char* name) const;

  // A dataset of the root group. Checked: a hard link, one dimension, the type, chunks of at most 64 MiB,
  // all of them stored and checksummed, no filter but fletcher32, shuffle and deflate, at most
  // `max_elements` elements and at most 1000 times the bytes it occupies.
  template <class T>
  Hdf5Dataset<T> Open(const char* name, std::int64_t max_elements) const;

  const std::string& Name() const { return name_; }

 private:
  struct Attribute {
    Hdf5Handle id;
    Hdf5Handle type;
    std::string where;  // beginning of its error messages
  };
  // `elements` receives their number; null: the attribute must be a scalar.
  Attribute OpenAttribute(const char* name, std::int64_t* elements = nullptr) const;
  void ReadIntegers(const Attribute& attribute, std::int64_t* values) const;
  void CheckStorage(hid_t dataset, const std::string& where, std::int64_t elements,
                    std::size_t element_bytes) const;

  std::string name_;
  Hdf5Handle file_;
};

// `text` in quotes for an error message: control characters replaced, cut after 80 bytes.
std::string Quoted(const std::string& text);

}  // namespace plural::data
