#include "data/hdf5_reader.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "data/error.h"

namespace plural::data {
namespace {

constexpr hsize_t kMaxChunkBytes = hsize_t{64} << 20;
constexpr hsize_t kMaxExpansion = 1000;  // of stored bytes: deflate's own limit is 1032
constexpr std::size_t kMaxStringBytes = 65536;
constexpr std::int64_t kMaxListElements = 4096;  // of an attribute
constexpr std::size_t kChunkCacheSlots = 521;    // prime, as HDF5 recommends; its default

struct TypeName {
  hid_t on_disk;
  hid_t in_memory;
  const char* words;
};
template <class T>
TypeName NameOf();
template <>
TypeName NameOf<std::int32_t>() {
  return {H5T_STD_I32LE, H5T_NATIVE_INT32, "little-endian int32"};
}
template <>
TypeName NameOf<std::int64_t>() {
  return {H5T_STD_I64LE, H5T_NATIVE_INT64, "little-endian int64"};
}
template <>
TypeName NameOf<std::uint8_t>() {
  return {H5T_STD_U8LE, H5T_NATIVE_UINT8, "uint8"};
}
template <>
TypeName NameOf<float>() {
  return {H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, "little-endian float32"};
}
template <>
TypeName NameOf<double>() {
  return {H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, "little-endian float64"};
}

std::string Describe(hid_t type) {
  const std::string bits = std::to_string(8 * H5Tget_size(type));
  const H5T_class_t type_class = H5Tget_class(type);
  if (type_class == H5T_STRING) {
    return H5Tis_variable_str(type) > 0 ? "a variable-length string" : "a fixed-length string";
  }
  if (type_class != H5T_INTEGER && type_class != H5T_FLOAT) return "neither integer nor float nor string";
  const std::string order = H5Tget_order(type) == H5T_ORDER_LE ? "little-endian " : "big-endian ";
  if (type_class == H5T_FLOAT) return order + "float" + bits;
  return order + (H5Tget_sign(type) == H5T_SGN_NONE ? "uint" : "int") + bits;
}

// HDF5's description of its latest failure, that of the innermost function.
std::string LatestHdf5Error() {
  std::string words;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* error, void* text) -> herr_t {
        auto& first = *static_cast<std::string*>(text);
        if (first.empty() && error->desc) first = error->desc;
        return 0;
      },
      &words);
  return words;
}

// Must directly follow the failed call: the next HDF5 call, even a close, clears the error.
DataError Unreadable(const std::string& where) {
  const std::string words = LatestHdf5Error();
  return DataError(where + " cannot be read" + (words.empty() ? "" : " (HDF5: " + Quoted(words) + ")") +
                   "; the file is damaged or made for a newer HDF5 than " + std::to_string(H5_VERS_MAJOR) +
                   "." + std::to_string(H5_VERS_MINOR) + "; prepare or copy it again");
}

// A writer holds an exclusive lock (HDF5 uses flock). False where the file system has no locks
// (ENOLCK, ENOSYS, EOPNOTSUPP): the corpus itself states whether its writer has finished.
bool IsLockedByAWriter(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool locked = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(descriptor);
  return locked;
}

}  // namespace

std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char byte : text.substr(0, 80)) {
    quoted += static_cast<unsigned char>(byte) < 32 || byte == 127 ? '?' : byte;
  }
  return quoted + (text.size() > 80 ? "...'" : "'");
}

QuietHdf5::QuietHdf5() {
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

QuietHdf5::~QuietHdf5() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

const std::filesystem::path& RequireReadableFile(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) throw MissingInput(path.string() + ": no such file");
  // Opening a pipe or a device could wait for ever.
  if (!std::filesystem::is_regular_file(status)) throw MissingInput(path.string() + ": not a regular file");
  if (access(path.c_str(), R_OK) != 0) {
    throw MissingInput(path.string() + ": cannot be read: " + std::strerror(errno));
  }
  return path;
}

Hdf5File::Hdf5File(const std::filesystem::path& path) : name_(RequireReadableFile(path).string()) {
  // Must precede any other call. A damaged file makes the library leak its own memory, which it
  // would report at length at exit. Nothing is left to clean up, since every handle closes itself.
  H5dont_atexit();
  const QuietHdf5 quiet;
  // Filters could otherwise be loaded from folders that the environment names.
  H5PLset_loading_state(0);

  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS));
  // HDF5's own lock has one error for a file that is being written and a file system without locks.
  if (IsLockedByAWriter(path)) {
    throw DataError(name_ + ": is open for writing in another program; wait until it is finished");
  }
  H5Pset_file_locking(access.Id(), false, true);
  file_ = Hdf5Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.Id()));
  if (!file_) {
    const std::string cause = LatestHdf5Error();
    if (H5Fis_hdf5(path.c_str()) == 0) {
      throw DataError(name_ + ": not an HDF5 file; make a corpus with `plural prepare`");
    }
    throw DataError(name_ + ": damaged, truncated or not closed by its writer (HDF5: " + Quoted(cause) +
                    "); prepare it again");
  }
  H5F_info2_t info{};
  if (H5Fget_info2(file_.Id(), &info) < 0 || info.super.version < 2) {
    throw DataError(
        name_ + ": superblock version " + std::to_string(info.super.version) +
        " has no checksums of metadata, 2 or 3 is needed; write the file with libver=('v110', 'v110')");
  }
}

bool Hdf5File::HasAttribute(const char* name) const {
  const QuietHdf5 quiet;
  return H5Aexists(file_.Id(), name) > 0;
}

Hdf5File::Attribute Hdf5File::OpenAttribute(const char* name, std::int64_t* elements) const {
  Attribute attribute;
  attribute.where = name_ + ": attribute '" + name + "'";
  if (H5Aexists(file_.Id(), name) <= 0) throw DataError(attribute.where + " is missing");
  attribute.id = Hdf5Handle(H5Aopen(file_.Id(), name, H5P_DEFAULT));
  if (!attribute.id) throw Unreadable(attribute.where);
  attribute.type = Hdf5Handle(H5Aget_type(attribute.id.Id()));
  if (!attribute.type) throw Unreadable(attribute.where);
  const Hdf5Handle space(H5Aget_space(attribute.id.Id()));
  if (!space) throw Unreadable(attribute.where);
  if (elements == nullptr) {
    if (H5Sget_simple_extent_type(space.Id()) != H5S_SCALAR) {
      throw DataError(attribute.where + " is an array, a scalar is needed");
    }
    return attribute;
  }
  if (H5Sget_simple_extent_ndims(space.Id()) != 1) {
    throw DataError(attribute.where + " is no list, an array of one dimension is needed");
  }
  *elements = H5Sget_simple_extent_npoints(space.Id());
  if (*elements > kMaxListElements) {
    throw DataError(attribute.where + " has " + std::to_string(*elements) + " elements, at most " +
                    std::to_string(kMaxListElements) + " are allowed");
  }
  return attribute;
}

void Hdf5File::ReadIntegers(const Attribute& attribute, std::int64_t* values) const {
  if (H5Tequal(attribute.type.Id(), H5T_STD_I64LE) <= 0) {
    throw DataError(attribute.where + " is " + Describe(attribute.type.Id()) +
                    ", little-endian int64 is needed");
  }
  if (H5Aread(attribute.id.Id(), H5T_NATIVE_INT64, values) < 0) throw Unreadable(attribute.where);
}

std::int64_t Hdf5File::IntegerAttribute(const char* name) const {
  const QuietHdf5 quiet;
  std::int64_t value = 0;
  ReadIntegers(OpenAttribute(name), &value);
  return value;
}

std::vector<std::int64_t> Hdf5File::IntegersAttribute(const char* name) const {
  const QuietHdf5 quiet;
  std::int64_t elements = 0;
  const Attribute attribute = OpenAttribute(name, &elements);
  std::vector<std::int64_t> values(static_cast<std::size_t>(elements));
  if (elements > 0) ReadIntegers(attribute, values.data());
  return values;
}

std::string Hdf5File::StringAttribute(const char* name) const {
  const QuietHdf5 quiet;
  const Attribute attribute = OpenAttribute(name);
  const hid_t type = attribute.type.Id();
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0) {
    throw DataError(attribute.where + " is " + Describe(type) +
                    ", a fixed-length string is needed (numpy.bytes_ in h5py)");
  }
  const std::size_t size = H5Tget_size(type);
  if (size > kMaxStringBytes) {
    throw DataError(attribute.where + " has " + std::to_string(size) + " bytes, at most " +
                    std::to_string(kMaxStringBytes) + " are allowed");
  }
  std::string value(size, '\0');
  if (H5Aread(attribute.id.Id(), type, value.data()) < 0) throw Unreadable(attribute.where);
  return value.substr(0, value.find('\0'));
}

template <class T>
Hdf5Dataset<T> Hdf5File::Open(const char* name, std::int64_t max_elements) const {
  const QuietHdf5 quiet;
  Hdf5Dataset<T> dataset;
  dataset.where_ = name_ + ": dataset '" + name + "'";
  const std::string& where = dataset.where_;

  // A soft or external link could lead to any other file of this machine.
  if (H5Lexists(file_.Id(), name, H5P_DEFAULT) <= 0) throw DataError(where + " is missing");
  H5L_info_t link{};
  if (H5Lget_info(file_.Id(), name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD) {
    throw DataError(where + " is a soft or external link, data in the file itself is needed");
  }
  const Hdf5Handle object(H5Oopen(file_.Id(), name, H5P_DEFAULT));
  if (!object) throw Unreadable(where);
  if (H5Iget_type(object.Id()) != H5I_DATASET)
    throw DataError(where + " is a group or a type, not a dataset");

  const Hdf5Handle type(H5Dget_type(object.Id()));
  if (!type) throw Unreadable(where);
  const Hdf5Handle space(H5Dget_space(object.Id()));
  if (!space) throw Unreadable(where);
  const TypeName wanted = NameOf<T>();
  if (H5Tequal(type.Id(), wanted.on_disk) <= 0) {
    throw DataError(where + " is of type " + Describe(type.Id()) + ", " + wanted.words + " is needed");
  }
  const int rank = H5Sget_simple_extent_ndims(space.Id());
  if (rank != 1) {
    throw DataError(where + " has " + std::to_string(rank) + " dimensions, 1 is needed");
  }
  hsize_t elements = 0;
  H5Sget_simple_extent_dims(space.Id(), &elements, nullptr);
  if (max_elements < 0 || elements > static_cast<hsize_t>(max_elements)) {
    throw DataError(where + " declares " + std::to_string(elements) + " elements, at most " +
                    std::to_string(max_elements) + " are allowed");
  }
  dataset.size_ = static_cast<std::int64_t>(elements);
  CheckStorage(object.Id(), where, dataset.size_, sizeof(T));

  // The cache holds at least one chunk, however large, since neighbouring groups share chunks.
  const Hdf5Handle creation(H5Dget_create_plist(object.Id()));
  hsize_t chunk = 0;
  H5Pget_chunk(creation.Id(), 1, &chunk);
  const Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS));
  H5Pset_chunk_cache(access.Id(), kChunkCacheSlots,
                     std::max<std::size_t>(std::size_t{1} << 20, chunk * sizeof(T)),
                     H5D_CHUNK_CACHE_W0_DEFAULT);
  dataset.id_ = Hdf5Handle(H5Dopen2(file_.Id(), name, access.Id()));
  if (!dataset.id_) throw Unreadable(where);
  return dataset;
}

void Hdf5File::CheckStorage(hid_t dataset, const std::string& where, std::int64_t elements,
                            std::size_t element_bytes) const {
  const Hdf5Handle creation(H5Dget_create_plist(dataset));
  if (!creation) throw Unreadable(where);
  if (H5Pget_external_count(creation.Id()) != 0) {
    throw DataError(where + " is stored in another file, data in the file itself is needed");
  }
  const H5D_layout_t layout = H5Pget_layout(creation.Id());
  if (layout != H5D_CHUNKED) {
    const char* found = layout == H5D_CONTIGUOUS ? "contiguous"
                        : layout == H5D_COMPACT  ? "compact"
                        : layout == H5D_VIRTUAL  ? "virtual"
                                                 : "unknown";
    throw DataError(where + " has the layout '" + found + "', 'chunked' with fletcher32 checksums is needed");
  }

  bool checksummed = false;
  const int filters = H5Pget_nfilters(creation.Id());
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(creation.Id(), static_cast<unsigned>(i), &flags, &values,
                                               nullptr, 0, nullptr, nullptr);
    if (filter == H5Z_FILTER_FLETCHER32) {
      checksummed = true;
    } else if (filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE) {
      throw DataError(where + " uses filter " + std::to_string(filter) +
                      "; fletcher32, shuffle and deflate are allowed");
    }
  }
  if (!checksummed) {
    throw DataError(where + " has no checksums; write it with the fletcher32 filter");
  }

  hsize_t chunk = 0;
  if (H5Pget_chunk(creation.Id(), 1, &chunk) != 1 || chunk == 0 || chunk > kMaxChunkBytes / element_bytes) {
    throw DataError(where + " has chunks of " + std::to_string(chunk) + " elements, at most " +
                    std::to_string(kMaxChunkBytes / element_bytes) + " (64 MiB) are allowed");
  }
  const hsize_t stored_bytes = H5Dget_storage_size(dataset);
  if (static_cast<hsize_t>(elements) > stored_bytes * kMaxExpansion / element_bytes) {
    throw DataError(where + " declares " + std::to_string(elements) + " elements but stores " +
                    std::to_string(stored_bytes) + " bytes; at most " + std::to_string(kMaxExpansion) +
                    " times the stored bytes are allowed");
  }
  // Chunks that were never written would read as zeros.
  hsize_t chunks = 0;
  const hsize_t needed = (static_cast<hsize_t>(elements) + chunk - 1) / chunk;
  const Hdf5Handle space(H5Dget_space(dataset));
  if (H5Dget_num_chunks(dataset, space.Id(), &chunks) < 0 || chunks < needed) {
    throw DataError(where + " stores " + std::to_string(chunks) + " of " + std::to_string(needed) +
                    " chunks; its writer did not finish");
  }
}

template <class T>
std::vector<T> Hdf5Dataset<T>::Read(std::int64_t begin, std::int64_t end) const {
  const QuietHdf5 quiet;
  std::vector<T> values(static_cast<std::size_t>(end - begin));
  if (values.empty()) return values;
  const hsize_t start = static_cast<hsize_t>(begin);
  const hsize_t count = values.size();
  const Hdf5Handle file_space(H5Dget_space(id_.Id()));
  const Hdf5Handle memory_space(H5Screate_simple(1, &count, nullptr));
  if (H5Sselect_hyperslab(file_space.Id(), H5S_SELECT_SET, &start, nullptr, &count, nullptr) < 0 ||
      H5Dread(id_.Id(), NameOf<T>().in_memory, memory_space.Id(), file_space.Id(), H5P_DEFAULT,
              values.data()) < 0) {
    throw Unreadable(where_ + " at elements " + std::to_string(begin) + " to " + std::to_string(end));
  }
  return values;
}

template class Hdf5Dataset<std::int32_t>;
template class Hdf5Dataset<std::int64_t>;
template class Hdf5Dataset<std::uint8_t>;
template class Hdf5Dataset<float>;
template class Hdf5Dataset<double>;
template Hdf5Dataset<std::int32_t> Hdf5File::Open(const char*, std::int64_t) const;
template Hdf5Dataset<std::int64_t> Hdf5File::Open(const char*, std::int64_t) const;
template Hdf5Dataset<std::uint8_t> Hdf5File::Open(const char*, std::int64_t) const;
template Hdf5Dataset<float> Hdf5File::Open(const char*, std::int64_t) const;
template Hdf5Dataset<double> Hdf5File::Open(const char*, std::int64_t) const;

}  // namespace plural::data
