// Element types: storage S, accumulation type A (float for bfloat16), and the kernels for each.
#ifndef SPARSEJAX_HANDLERS_TYPES_H_
#define SPARSEJAX_HANDLERS_TYPES_H_

#include <algorithm>
#include <exception>
#include <memory>
#include <type_traits>

#include "../plan/partition.h"
#include "../runtime/huge_pages.h"
#include "../runtime/isa.h"
#include "../runtime/parallel.h"
#include "xla/ffi/api/ffi.h"

namespace sparsejax {

namespace ffi = xla::ffi;

template <typename S>
struct Element;

template <>
struct Element<float> {
  using Sum = float;
  static const StorageKernels<float, float>& Storage() { return Table().storage_f32; }
  static const FloatKernels<float>& Kernels() { return Table().f32; }
};

template <>
struct Element<double> {
  using Sum = double;
  static const StorageKernels<double, double>& Storage() { return Table().storage_f64; }
  static const FloatKernels<double>& Kernels() { return Table().f64; }
};

template <>
struct Element<bfloat16> {
  using Sum = float;
  static const StorageKernels<bfloat16, float>& Storage() { return Table().storage_bf16; }
  static const FloatKernels<float>& Kernels() { return Table().f32; }
};

template <typename S>
using Sum = typename Element<S>::Sum;

// Whether S is stored as it is computed, so that kernels may read and write it in place.
template <typename S>
constexpr bool kNative = std::is_same_v<S, Sum<S>>;

// Entries per chunk of what is done once for every entry: values put in order, sums of gradients put in their places.
constexpr int64_t kEntriesPerChunk = 16 * 1024;

// The values in the accumulation type and in the order of the kernels: the operand itself, or a copy that lives as long as
// this object.
template <typename S>
class Values {
 public:
  Values(const S* data, int64_t n) {
    if constexpr (kNative<S>) {
      pointer_ = data;
    } else {
      copy_.reset(new Sum<S>[n]);
      Element<S>::Storage().load_rows(data, 1, n, n, copy_.get(), n);
      pointer_ = copy_.get();
    }
  }

  // These values at the positions, or themselves where `position` is null. Rows are run through many times in a call:
  // gathering once is what pays. The chunks are for the job to gather before it runs; positions must live until then.
  Values At(const int32_t* position, int64_t n) const {
    if (position == nullptr) return *this;
    Values out = *this;
    out.position_ = position;
    out.entries_ = n;
    out.ordered_.reset(new Sum<S>[n]);
    return out;
  }

  int64_t chunks() const { return CeilDiv(entries_, kEntriesPerChunk); }
  void Gather(int64_t chunk) const {
    const int64_t begin = chunk * kEntriesPerChunk, end = std::min(begin + kEntriesPerChunk, entries_);
    for (int64_t i = begin; i < end; ++i) ordered_[i] = pointer_[position_[i]];
  }

  const Sum<S>* get() const { return position_ == nullptr ? pointer_ : ordered_.get(); }

 private:
  const Sum<S>* pointer_;
  std::shared_ptr<Sum<S>[]> copy_, ordered_;
  const int32_t* position_ = nullptr;
  int64_t entries_ = 0;
};

template <typename S>
const S* OperandData(const ffi::AnyBuffer& operand) {
  return reinterpret_cast<const S*>(operand.untyped_data());
}

// Memory of a result, on large pages where it is large: it is fresh from the allocator in every call.
template <typename S>
S* PrepareResult(ffi::AnyBuffer& result) {
  AdviseHugePages(result.untyped_data(), result.size_bytes());
  return reinterpret_cast<S*>(result.untyped_data());
}

// Calls f, the body of a handler, with a value of the element type that `type` names; the caller has checked that it is
// one of the three. A failed allocation becomes an error instead of leaving the handler.
template <typename F>
ffi::Error DispatchGuarded(ffi::DataType type, const F& f) noexcept {
  try {
    switch (type) {
      case ffi::DataType::F64:
        return f(double{});
      case ffi::DataType::BF16:
        return f(bfloat16{});
      default:
        return f(float{});
    }
  } catch (const std::exception&) {
    return OutOfMemory();
  }
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_TYPES_H_
