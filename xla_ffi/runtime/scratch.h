// Scratch memory per thread, aligned to large pages. It is reused, and grows as needed.
#ifndef SPARSEJAX_RUNTIME_SCRATCH_H_
#define SPARSEJAX_RUNTIME_SCRATCH_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "huge_pages.h"

namespace sparsejax {

class Scratch {
 public:
  // Uninitialised memory for n elements of T. It replaces the memory returned before. Throws std::bad_alloc.
  template <typename T>
  T* Get(int64_t n) {
    contents_ = {};
    const size_t bytes = static_cast<size_t>(n) * sizeof(T);
    if (bytes > capacity_) {
      memory_.reset();
      capacity_ = 0;
      // Large memory consists of whole large pages, because kernels access a packed tile at large strides.
      const size_t room = bytes < kHugePage / 8 ? bytes : (bytes + kHugePage - 1) / kHugePage * kHugePage;
      memory_.reset(static_cast<char*>(::operator new(room, kAlignment)));
      AdviseHugePages(memory_.get(), room);
      capacity_ = room;
    }
    return reinterpret_cast<T*>(memory_.get());
  }

  // The same, but contents that an earlier task of the same call has stored here on this thread remain valid.
  template <typename T>
  T* GetFor(int64_t call, int64_t n) {
    const Contents before = contents_;
    const bool fits = static_cast<size_t>(n) * sizeof(T) <= capacity_;
    T* memory = Get<T>(n);
    if (fits && before.call == call) contents_ = before;
    return memory;
  }
  // Whether the contents are this part of this call's data, and stating that they are. A call numbers its parts itself.
  bool Holds(int64_t call, int64_t part) const { return contents_.call == call && contents_.part == part; }
  void Hold(int64_t call, int64_t part) { contents_ = {call, part}; }

  // A new number for a call of a handler. It is never 0.
  static int64_t NewCall() {
    static std::atomic<int64_t> calls{0};
    return ++calls;
  }

  enum Slot { kPackedX, kPackedY, kOutput, kPartial, kCuts, kSlots };

  // The calling thread's scratch for one purpose. A thread runs one task at a time, so no two tasks use it at once.
  static Scratch& Local(Slot slot) {
    static thread_local Scratch slots[kSlots];
    return slots[slot];
  }

 private:
  static constexpr std::align_val_t kAlignment{kHugePage};
  struct Contents {
    int64_t call = 0, part = 0;
  };
  struct Free {
    void operator()(char* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t capacity_ = 0;
  Contents contents_;
};

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_SCRATCH_H_
