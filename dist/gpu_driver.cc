#include "dist/gpu_driver.h"

#include <dlfcn.h>

namespace plural::dist {
namespace {

// Functions of the driver's C interface (cuda.h), declared here for builds without CUDA, which query it too.
using Init = int(unsigned);
using DriverGetVersion = int(int*);
using DeviceGetCount = int(int*);
using DeviceGet = int(int*, int);
using DeviceGetName = int(char*, int, int);
using DeviceTotalMem = int(std::size_t*, int);

template <typename Function>
Function* Entry(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

GpuDriver ProbeGpuDriver() {
  GpuDriver driver;
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return driver;
  auto* init = Entry<Init>(library, "cuInit");
  auto* get_version = Entry<DriverGetVersion>(library, "cuDriverGetVersion");
  auto* get_count = Entry<DeviceGetCount>(library, "cuDeviceGetCount");
  auto* get_device = Entry<DeviceGet>(library, "cuDeviceGet");
  auto* get_name = Entry<DeviceGetName>(library, "cuDeviceGetName");
  auto* get_memory = Entry<DeviceTotalMem>(library, "cuDeviceTotalMem_v2");
  const bool complete = init && get_version && get_count && get_device && get_name && get_memory;
  int version = 0, count = 0;
  if (complete && get_version(&version) == 0) driver.cuda_version = version;
  if (complete && init(0) == 0 && get_count(&count) == 0) {
    for (int index = 0; index < count; ++index) {
      int device = 0;
      char name[256] = {};
      std::size_t bytes = 0;
      if (get_device(&device, index) != 0 || get_name(name, sizeof(name), device) != 0 ||
          get_memory(&bytes, device) != 0) {
        continue;
      }
      driver.devices.push_back({name, bytes});
    }
  }
  // Not closed: after cuInit the driver has threads and exit handlers, and CUDA takes the same library next.
  return driver;
}

}  // namespace plural::dist
