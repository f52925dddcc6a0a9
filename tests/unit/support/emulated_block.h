// A block of GPU threads on the host: the source of the kernels runs as it is.
//
// Owns: registers of all threads, shared memory, the meaning of the instructions (block.h is their other
// implementation). Between two barriers, threads take turns at every Each, so what a GPU would do in any
// order is done in one; a value that a thread needs from another without a barrier between them is found by
// watching shared memory, and a copy arrives no sooner than it is waited for. Errors: std::logic_error.
// Thread rule: one thread.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "trainer/kernels/cuda/fragments.h"

namespace plural::trainer::gpu {

template <class Registers>
class EmulatedBlock {
 public:
  EmulatedBlock(int threads, int shared_bytes)
      : registers_(static_cast<std::size_t>(threads)),
        shared_(static_cast<std::size_t>(shared_bytes), std::uint8_t{0xFF}),  // NaN in both types
        watched_(static_cast<std::size_t>(shared_bytes) / 4) {
    std::memset(static_cast<void*>(registers_.data()), 0xFF, registers_.size() * sizeof(Registers));
  }

  template <class F>
  void Each(const F& f) {
    for (int thread = 0; thread < Threads(); ++thread)
      f(thread, registers_[static_cast<std::size_t>(thread)]);
  }
  void Sync() { ++interval_; }

  template <class T>
  T Load(int thread, int offset) {
    T value;
    std::memcpy(&value, Read(thread, offset, sizeof value), sizeof value);
    return value;
  }
  template <class T>
  void Store(int thread, int offset, const T& value) {
    std::memcpy(Written(thread, offset, sizeof value), &value, sizeof value);
  }

  void CopyAsync(int thread, int offset, const void* from) {
    Copy copy{thread, offset, {}};
    if (from != nullptr) {
      if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) throw std::logic_error("a copy is not aligned");
      copy.value = LoadSixteen(from);
    }
    std::memset(Written(thread, offset, 16), 0xFF, 16);
    copies_.push_back(copy);
  }
  void WaitCopies() {
    for (const Copy& copy : copies_) std::memcpy(Written(copy.thread, copy.offset, 16), &copy.value, 16);
    copies_.clear();
  }

  template <bool kTransposed, class F>
  void Matrices(const F& f) {
    for (int warp = 0; warp < Threads(); warp += 32) {
      std::uint16_t rows[32][8];  // of the four matrices
      MatrixLoad loads[32];
      for (int lane = 0; lane < 32; ++lane) {
        loads[lane] = f(warp + lane, registers_[static_cast<std::size_t>(warp + lane)]);
        if (loads[lane].offset % 16 != 0) throw std::logic_error("a row of a matrix is not aligned");
        std::memcpy(rows[lane], Read(warp + lane, loads[lane].offset, 16), 16);
      }
      for (int lane = 0; lane < 32; ++lane) {
        const int row = lane / 4, column = lane % 4 * 2;
        for (int m = 0; m < 4; ++m) {
          const std::uint16_t low = kTransposed ? rows[8 * m + column][row] : rows[8 * m + row][column];
          const std::uint16_t high =
              kTransposed ? rows[8 * m + column + 1][row] : rows[8 * m + row][column + 1];
          loads[lane].to[m] = low | (static_cast<std::uint32_t>(high) << 16);
        }
      }
    }
  }

  template <class E, class F>
  void Multiply(const F& f) {
    for (int warp = 0; warp < Threads(); warp += 32) {
      Operands<E> lanes[32];
      for (int lane = 0; lane < 32; ++lane)
        lanes[lane] = f(registers_[static_cast<std::size_t>(warp + lane)]);
      if constexpr (sizeof(E) == 4) {
        for (int lane = 0; lane < 32; ++lane) {
          MultiplyByLanes(
              lane, lanes[lane].c, [&](int i, int from) { return lanes[from].a[i]; },
              [&](int i, int from) { return lanes[from].b[i]; });
        }
      } else {
        MultiplyMatrices(lanes);
      }
    }
  }

  template <class F>
  void QuadMax(const F& f) {
    Quads(f, [](float x, float y) { return std::fmax(x, y); });
  }
  template <class F>
  void WarpSum(const F& f) {
    for (std::size_t warp = 0; warp < registers_.size(); warp += 32) {
      for (std::size_t apart = 16; apart > 0; apart /= 2) {
        float x[32];
        for (std::size_t i = 0; i < 32; ++i) x[i] = f(registers_[warp + i]);
        for (std::size_t i = 0; i < 32; ++i) f(registers_[warp + i]) = x[i] + x[i ^ apart];
      }
    }
  }
  template <class F>
  void QuadSum(const F& f) {
    Quads(f, [](float x, float y) { return x + y; });
  }

 private:
  struct Copy {
    int thread, offset;
    SixteenBytes value;
  };
  // Who touched four bytes in which interval between barriers; -1: several.
  struct Watch {
    int written_in = -1, writer = -1, read_in = -1, reader = -1;
  };

  int Threads() const { return static_cast<int>(registers_.size()); }

  template <class Visit>
  std::uint8_t* Touch(int offset, std::size_t bytes, const Visit& visit) {
    const auto from = static_cast<std::size_t>(offset);
    if (offset < 0 || from % 4 != 0 || from + bytes > shared_.size()) {
      throw std::logic_error("byte " + std::to_string(offset) + " of shared memory of " +
                             std::to_string(shared_.size()));
    }
    for (std::size_t i = from / 4; i < (from + bytes) / 4; ++i) visit(watched_[i]);
    return shared_.data() + from;
  }
  const std::uint8_t* Read(int thread, int offset, std::size_t bytes) {
    return Touch(offset, bytes, [&](Watch& watch) {
      if (watch.written_in == interval_ && watch.writer != thread) Race("reads what another writes", offset);
      watch.reader = watch.read_in == interval_ && watch.reader != thread ? -1 : thread;
      watch.read_in = interval_;
    });
  }
  std::uint8_t* Written(int thread, int offset, std::size_t bytes) {
    return Touch(offset, bytes, [&](Watch& watch) {
      if (watch.written_in == interval_ && watch.writer != thread) Race("writes what another writes", offset);
      if (watch.read_in == interval_ && watch.reader != thread) Race("writes what another reads", offset);
      watch.written_in = interval_;
      watch.writer = thread;
    });
  }
  static void Race(const char* what, int offset) {
    throw std::logic_error(std::string("without a barrier, a thread ") + what + ": byte " +
                           std::to_string(offset));
  }

  // The product of the matrices that the lanes hold, as the definition of the instruction says.
  static void MultiplyMatrices(const Operands<Bf16> (&lanes)[32]) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; ++i) {
        const FloatPair pair = Split(lanes[lane].a[i]);
        a[g + 8 * (i % 2)][2 * t + 8 * (i / 2)] = pair.first;
        a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + 1] = pair.second;
      }
      for (int i = 0; i < 2; ++i) {
        const FloatPair pair = Split(lanes[lane].b[i]);
        b[2 * t + 8 * i][g] = pair.first;
        b[2 * t + 8 * i + 1][g] = pair.second;
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
        lanes[lane].c[i] += sum;
      }
    }
  }

  template <class F, class Combine>
  void Quads(const F& f, const Combine& combine) {
    for (std::size_t first = 0; first < registers_.size(); first += 4) {
      float x[4];
      for (std::size_t i = 0; i < 4; ++i) x[i] = f(registers_[first + i]);
      const float all = combine(combine(x[0], x[1]), combine(x[2], x[3]));
      for (std::size_t i = 0; i < 4; ++i) f(registers_[first + i]) = all;
    }
  }

  std::vector<Registers> registers_;
  std::vector<std::uint8_t> shared_;
  std::vector<Watch> watched_;
  std::vector<Copy> copies_;
  int interval_ = 0;
};

// Runs the blocks of a launch one after the other.
struct EmulatedLaunch {
  template <class Program, class Arguments>
  int Start(int x, int y, const Arguments& arguments) const {
    for (int i = 0; i < x; ++i) {
      for (int j = 0; j < y; ++j) {
        EmulatedBlock<typename Program::Registers> block(Program::kThreads, Program::kBytes);
        Program::Run(block, arguments, i, j);
      }
    }
    return 0;
  }
};

}  // namespace plural::trainer::gpu
