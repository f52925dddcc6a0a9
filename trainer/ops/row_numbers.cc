#include "trainer/ops/row_numbers.h"

#include <utility>

#include "trainer/ops/to_device.h"

namespace plural::trainer {

RowNumbers::RowNumbers(std::vector<std::int64_t> rows, at::Device device)
    : host(std::move(rows)), on_device(ToDevice(host, at::kLong, device)) {}

}  // namespace plural::trainer
